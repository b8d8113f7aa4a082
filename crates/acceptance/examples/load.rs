//! The strict client for measurements: sends to an app until its input ends, then prints what came of it as JSON.
//!
//! `load EDGE APP RATE CONNECTIONS`, such as `load 127.0.0.1:8080 simple-web-app 2000 64`. With `PATH TEXT...` after that it asks
//! any app for that path, and each answer must hold exactly one of the texts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is its purpose")]

use std::error::Error;
use std::io::Read as _;

use berth_acceptance::load::{Load, Options, Page};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [edge, app, rate, connections, page @ ..] = &words[..] else {
        return Err("usage: load EDGE APP RATE CONNECTIONS [PATH TEXT...]".into());
    };
    let mut options = Options::new(edge.parse()?, app);
    (options.rate, options.connections) = (rate.parse()?, connections.parse()?);
    if let [path, texts @ ..] = page {
        options.page = Some(Page { path: path.clone(), texts: texts.to_vec() }.into());
    }
    let load = Load::start(options);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let outcome = load.stop();
    for failed in outcome.failed.iter().take(20) {
        eprintln!("{failed}");
    }
    println!(
        "{{\"sent\":{},\"failed\":{},\"rate\":{:.1}}}",
        outcome.samples.len() + outcome.failed.len(),
        outcome.failed.len(),
        outcome.rate()
    );
    Ok(())
}
