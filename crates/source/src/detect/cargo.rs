//! What a Cargo.toml says about the programs of its package, without running cargo.

use std::collections::BTreeSet;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CargoToml {
    package: Option<PackageTable>,
    #[serde(default)]
    bin: Vec<BinTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PackageTable {
    name: String,
    default_run: Option<String>,
    autobins: Option<bool>,
}

#[derive(Deserialize)]
struct BinTable {
    name: Option<String>,
}

/// The programs of a package.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Package {
    programs: BTreeSet<String>,
    default_run: Option<String>,
    workspace: bool,
}

/// Reads the Cargo.toml at the root of a tree with these paths. Gives a problem as a sentence when it is none.
pub(super) fn read<'p>(text: &[u8], paths: impl Iterator<Item = &'p str>) -> Result<Package, String> {
    let text = std::str::from_utf8(text).ok().ok_or("Cargo.toml is not UTF-8")?;
    let read: CargoToml =
        toml::from_str(text).map_err(|error| format!("Cargo.toml cannot be read: {}", error.message()))?;
    let mut programs: BTreeSet<String> = read.bin.into_iter().filter_map(|bin| bin.name).collect();
    let Some(package) = read.package else {
        return Ok(Package { programs, default_run: None, workspace: true });
    };
    if package.autobins != Some(false) {
        for path in paths {
            let below = path.strip_prefix("src/bin/");
            let found = match below.map(|below| (below.strip_suffix(".rs"), below.strip_suffix("/main.rs"))) {
                _ if path == "src/main.rs" => Some(package.name.as_str()),
                Some((_, Some(folder))) if !folder.contains('/') => Some(folder),
                Some((Some(file), None)) if !file.contains('/') => Some(file),
                _ => None,
            };
            programs.extend(found.map(str::to_owned));
        }
    }
    Ok(Package { programs, default_run: package.default_run, workspace: false })
}

impl Package {
    /// The program that `web` runs: the only one, the one cargo would run, or the one called like the app.
    pub(super) fn choose(&self, app: &str) -> Result<&str, String> {
        let write = "write `[processes]` with `web = \"bin/NAME\"` into berth.toml";
        if let Some(name) = &self.default_run {
            return Ok(name);
        }
        let mut programs = self.programs.iter();
        match (programs.next(), programs.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => self.programs.get(app).map(String::as_str).ok_or_else(|| {
                let names: Vec<&str> = self.programs.iter().map(String::as_str).collect();
                format!("Cargo.toml has several programs ({}); {write}", names.join(", "))
            }),
            (None, _) if self.workspace => {
                Err(format!("Cargo.toml is a workspace, which does not say what to run; {write}"))
            }
            (None, _) => Err(format!("Cargo.toml has no program, only a library; {write}")),
        }
    }
}
