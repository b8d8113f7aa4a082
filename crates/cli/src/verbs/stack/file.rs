//! Compose files: where they are found, and what the source of each service is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_contract::Code;
use berth_source::stack::{self, Service, Stack, Told};
use berth_source::walk::{Packed, pack};
use berth_spec::dotenv::Around;
use berth_spec::manifest::FILE_NAME;
use berth_spec::{AppName, Dotenv, EnvName, dotenv};

use crate::args::OfStack;
use crate::failure::Failure;
use crate::verbs::deploy::Source;
use crate::verbs::{MANIFEST_MAX, Session, read_file, valid_name};

/// What is looked for when nothing is said.
const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// A stack that was read.
pub(super) struct Loaded {
    pub(super) name: AppName,
    pub(super) file: String,
    directory: PathBuf,
    /// What the `.env` beside it says.
    variables: Dotenv,
    pub(super) stack: Stack,
}

impl Session<'_> {
    /// The stacks that are meant.
    pub(super) fn stacks(&self, of: &OfStack) -> Result<Vec<Loaded>, Failure> {
        let here = &self.environment.directory;
        let files: Vec<PathBuf> = match (&of.name, &of.file[..]) {
            (Some(_), [_, _, ..]) => {
                let detail = "one name was given for several files";
                return Err(Failure::local(
                    Code::UsageInvalid,
                    detail,
                    "each file is a stack of its own: leave the name out, or give one file",
                ));
            }
            (_, given @ [_, ..]) => given.to_vec(),
            (Some(name), []) => {
                named(name).into_iter().filter(|file| here.join(file).is_file()).take(1).collect()
            }
            (None, []) => {
                FILES.iter().map(PathBuf::from).filter(|file| here.join(file).is_file()).take(1).collect()
            }
        };
        let files = match (&of.name, files.is_empty()) {
            // The one file may be called so in itself.
            (Some(_), true) => {
                FILES.iter().map(PathBuf::from).filter(|file| here.join(file).is_file()).take(1).collect()
            }
            _ => files,
        };
        if files.is_empty() {
            let detail = format!("there is no compose file in {}", here.display());
            return Err(Failure::local(Code::SourceUnreadable, detail, "name one with -f"));
        }
        files.iter().map(|file| self.load(file, of.name.as_deref())).collect()
    }

    fn load(&self, file: &Path, name: Option<&str>) -> Result<Loaded, Failure> {
        let path = self.environment.directory.join(file);
        let shown = file.display().to_string();
        let directory = path.parent().unwrap_or(Path::new(".")).to_owned();
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = read_file(&directory, &file_name)?;
        let text = text.ok_or_else(|| {
            Failure::local(
                Code::SourceUnreadable,
                format!("there is no file {shown}"),
                "name one that is there with -f",
            )
        })?;
        let variables = read_file(&directory, dotenv::FILE_NAME)?.unwrap_or_default();
        // What nobody sets is left as it stands: the file may be for others as well, and is read by `down`, too.
        let around = Around { over: &|name| self.own_variable(name), under: &|_| None, strict: false };
        let variables =
            Dotenv::of_compose(dotenv::FILE_NAME, &variables, around).map_err(Failure::Manifest)?;
        let variable = |name: &str| self.variable_of(&variables, name);
        let mut stack = stack::read(&shown, &text, &variable).map_err(Failure::Manifest)?;
        let unread = stack.services.iter().filter_map(|service| unread_manifest(&directory, service));
        stack.told.extend(unread.collect::<Vec<_>>());
        stack.told.sort_by_key(|told| told.line);
        let of_directory =
            || directory.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let said = name
            .map(str::to_owned)
            .or_else(|| stack.name.clone())
            .or_else(|| of_file(&file_name))
            .or_else(of_directory);
        let name = said.and_then(|name| valid_name(&name)).ok_or_else(|| {
            let detail = format!("no name of a stack can be made of {shown}");
            Failure::local(Code::UsageInvalid, detail, "name it: `berth stack up NAME -f FILE`")
        })?;
        Ok(Loaded { name, file: shown, directory, variables, stack })
    }

    /// A variable of whoever runs the stack.
    fn own_variable(&self, name: &str) -> Option<String> {
        self.environment.variable(name).and_then(|value| value.to_str()).map(str::to_owned)
    }

    /// What a variable stands for in a compose file that has these beside it.
    fn variable_of(&self, beside: &Dotenv, name: &str) -> Option<String> {
        self.own_variable(name).or_else(|| beside.get(name).map(str::to_owned))
    }

    /// What the files of variables of a service say.
    fn of_env_files(&self, loaded: &Loaded, service: &Service) -> Result<BTreeMap<EnvName, String>, Failure> {
        let mut all: BTreeMap<EnvName, String> = BTreeMap::new();
        for file in &service.env_files {
            let text = read_file(&loaded.directory, &file.path)?;
            let Some(text) = text else {
                if !file.required {
                    continue;
                }
                let detail =
                    format!("{} wants the variables of {}, which is not there", service.name, file.path);
                return Err(Failure::local(
                    Code::SourceUnreadable,
                    detail,
                    "write the file, or say `required: false`",
                ));
            };
            let variable = |name: &str| {
                let own = || service.manifest.env.iter().find(|(it, _)| it.as_str() == name);
                self.variable_of(&loaded.variables, name).or_else(|| own().map(|(_, value)| value.clone()))
            };
            // Of two files the later one wins, and what the service itself says over both.
            if file.raw {
                all.extend(Dotenv::raw(&text));
                continue;
            }
            let before =
                |name: &str| all.iter().find(|(it, _)| it.as_str() == name).map(|(_, it)| it.clone());
            let around = Around { over: &variable, under: &before, strict: true };
            let read = Dotenv::of_compose(&file.path, &text, around).map_err(Failure::Manifest)?;
            all.extend(read.variables);
        }
        Ok(all)
    }

    /// What a service is made from: its directory, or nothing for an image, and the manifest that its part of the file is.
    pub(super) fn source_of(&self, loaded: &Loaded, service: &Service) -> Result<Source, Failure> {
        let mut manifest = service.manifest.clone();
        manifest.stack = Some(loaded.name.clone());
        for other in &loaded.stack.services {
            if let (Some(alias), Ok(app)) = (&other.alias, AppName::new(&app_name(loaded, other))) {
                manifest.network.names.insert(alias.clone(), app);
            }
        }
        for (name, value) in self.of_env_files(loaded, service)? {
            manifest.env.entry(name).or_insert(value);
        }
        let packed = match &service.context {
            None => Packed::default(),
            Some(context) => {
                let directory = loaded.directory.join(context);
                if !directory.is_dir() {
                    let detail =
                        format!("{} is built from {context}, which is not a directory", service.name);
                    return Err(Failure::local(
                        Code::SourceUnreadable,
                        detail,
                        "name the directory that holds the source",
                    ));
                }
                pack(&directory)?
            }
        };
        let text = manifest.write(&[], &[]);
        if text.len() as u64 > MANIFEST_MAX {
            let detail =
                format!("the variables of {} are longer than {} KiB", service.name, MANIFEST_MAX / 1_024);
            return Err(Failure::local(Code::UsageInvalid, detail, "set them with `berth config set`"));
        }
        Ok(Source::new(packed, Some(text), None, manifest))
    }
}

/// The berth.toml of a service's own source, in whose place the service's part of the compose file stands.
fn unread_manifest(directory: &Path, service: &Service) -> Option<Told> {
    let file = Path::new(service.context.as_ref()?).join(FILE_NAME);
    directory.join(&file).is_file().then(|| Told {
        line: service.line,
        what: format!("services.{}.build", service.name),
        why: format!(
            "{} is not read, since the service is what the compose file says: write there what it needs, or deploy its directory by `berth deploy`",
            file.display()
        ),
        refused: false,
    })
}

/// The compose file in a directory, and how many services it has; nothing when there is none, or none that can be read.
pub(in crate::verbs) fn described_by(directory: &Path) -> Result<Option<(&'static str, usize)>, Failure> {
    for file in FILES {
        if let Some(text) = read_file(directory, file)? {
            // Values of variables change nothing about how many there are.
            let stack = stack::read(file, &text, &|_| Some(String::new()));
            return Ok(stack.ok().map(|stack| (file, stack.services.len())));
        }
    }
    Ok(None)
}

/// Where a stack of this name may be described.
fn named(name: &str) -> Vec<PathBuf> {
    let flat = [
        "compose.{}.yaml",
        "compose.{}.yml",
        "docker-compose.{}.yml",
        "docker-compose.{}.yaml",
        "{}.compose.yaml",
        "{}.compose.yml",
        "{}.yaml",
        "{}.yml",
        "{}/compose.yaml",
        "{}/compose.yml",
        "{}/docker-compose.yml",
    ];
    flat.iter().map(|pattern| PathBuf::from(pattern.replace("{}", name))).collect()
}

/// What a file's name calls the stack: `infra` of compose.infra.yaml; none of a plain compose.yaml.
fn of_file(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".yaml").or_else(|| file.strip_suffix(".yml")).unwrap_or(file);
    let stem = stem.strip_prefix("docker-").unwrap_or(stem);
    let stem = stem.strip_prefix("compose").map_or(stem, |rest| rest.trim_start_matches(['.', '-']));
    let stem = stem.strip_suffix(".compose").unwrap_or(stem);
    (!stem.is_empty()).then(|| stem.to_owned())
}

/// What the app of a service is called.
pub(super) fn app_name(loaded: &Loaded, service: &Service) -> String {
    format!("{}-{}", loaded.name, service.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_stack() {
        let named = [
            "compose.infra.yaml",
            "docker-compose.models.yml",
            "worker.yaml",
            "app.compose.yml",
            "compose.yaml",
            "docker-compose.yml",
        ];
        let found = named.map(of_file);
        let expected = [Some("infra"), Some("models"), Some("worker"), Some("app"), None, None];
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    }
}
