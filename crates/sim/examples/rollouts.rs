//! Rolls out so many times in each scenario and prints what became of it as JSON, for `cargo xtask bench rollouts`.

use berth_sim::rollouts::{Expected, SCENARIOS, try_out};

fn main() -> std::io::Result<()> {
    let rollouts = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(100);
    let mut scenarios = Vec::new();
    for scenario in SCENARIOS {
        let tried = try_out(scenario, rollouts, 20_261_127);
        let expected = match scenario.expected {
            Expected::Through => "through",
            Expected::Back => "back",
            Expected::Either => "either",
        };
        scenarios.push(serde_json::json!({
            "name": scenario.name,
            "expected": expected,
            "rollouts": tried.rollouts,
            "back": tried.back,
            "median_s": tried.seconds.get(tried.seconds.len() / 2),
        }));
    }
    let text = serde_json::to_string(&scenarios)?;
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())
}
