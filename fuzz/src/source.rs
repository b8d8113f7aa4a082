//! What people bring along: a compose file is taken over as apps that Berth can be told of, or refused with its lines.

use berth_source::stack;
use berth_spec::Manifest;

/// A compose.yaml.
pub fn compose(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let variable = |name: &str| name.starts_with('A').then(|| "web:80".to_owned());
    let stack = match stack::read("compose.yaml", text, &variable) {
        Ok(stack) => stack,
        Err(problems) => return assert!(!problems.to_string().is_empty()),
    };
    // For YAML a carriage return alone ends a line, too.
    let lines = text.matches(['\n', '\r']).count() + 1;
    for told in &stack.told {
        let line = usize::try_from(told.line).unwrap_or(0);
        assert!(!told.why.is_empty() && (1..=lines).contains(&line), "{told:?}");
    }
    if stack.is_refused() {
        return;
    }
    for service in &stack.services {
        let written = service.manifest.write(&[], &[]);
        assert!(Manifest::parse(&written).is_ok(), "{written}");
    }
    // Each after those that it depends on.
    for (place, service) in stack.services.iter().enumerate() {
        let before = |name: &berth_spec::AppName| stack.services[..place].iter().any(|it| it.name == *name);
        assert!(service.after.keys().all(before), "{} comes too early", service.name);
    }
}
