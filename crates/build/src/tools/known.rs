//! The tools as data: their programs, where version managers keep them, how they tell their version, how they get installed.

use berth_source::recipe::Tool;

/// What is known of a tool.
pub(crate) struct Known {
    pub(crate) tool: Tool,
    /// As messages name it.
    pub(crate) name: &'static str,
    /// The program that is looked for, asked and run.
    pub(crate) program: &'static str,
    /// What makes it tell its version, and what stands before the version in the answer.
    pub(crate) ask: &'static [&'static str],
    pub(crate) before: &'static str,
    /// Where version managers put it, each as a manager of [`MANAGERS`] and a path below that. `*` stands for one folder, which is
    /// named by the version.
    pub(crate) installs: &'static [(&'static str, &'static str)],
    pub(crate) moves: Moves,
    /// How it gets onto the machine.
    pub(crate) install: &'static str,
}

/// Whether a tool works elsewhere than where it was installed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moves {
    /// With the folder around it.
    Whole,
    /// It is one file.
    Alone,
    /// It holds paths of its own in compiled files.
    Not,
}

/// The managers of versions, with the variable that says where each keeps its things, and where it does by default, below the home
/// directory.
pub(crate) const MANAGERS: [(&str, &str, &str); 11] = [
    ("nvm", "NVM_DIR", ".nvm"),
    ("fnm", "FNM_DIR", ".local/share/fnm"),
    ("volta", "VOLTA_HOME", ".volta"),
    ("mise", "MISE_DATA_DIR", ".local/share/mise"),
    ("asdf", "ASDF_DATA_DIR", ".asdf"),
    ("pyenv", "PYENV_ROOT", ".pyenv"),
    ("rbenv", "RBENV_ROOT", ".rbenv"),
    ("sdkman", "SDKMAN_DIR", ".sdkman"),
    ("uv", "UV_PYTHON_INSTALL_DIR", ".local/share/uv/python"),
    ("dotnet", "DOTNET_ROOT", ".dotnet"),
    ("home", "", ""),
];

/// Folders of programs that installers use and a service's `PATH` rarely has.
pub(crate) const FOLDERS: [&str; 6] =
    ["/usr/local/go/bin", "/usr/local/bin", "/usr/bin", "/usr/share/dotnet", "/usr/lib/dotnet", "/snap/bin"];

/// Names of folders that hold stand-ins, which choose by the directory they are started in.
pub(crate) const STAND_INS: [&str; 1] = ["shims"];
/// Names of the programs that such stand-ins are links to.
pub(crate) const CHOOSERS: [&str; 5] = ["volta-shim", "mise", "asdf", "pyenv", "rbenv"];

const NODE_INSTALLS: &[(&str, &str)] = &[
    ("nvm", "versions/node/*/bin"),
    ("fnm", "node-versions/*/installation/bin"),
    ("volta", "tools/image/node/*/bin"),
    ("mise", "installs/node/*/bin"),
    ("asdf", "installs/nodejs/*/bin"),
];

macro_rules! known {
    ($($tool:ident $name:literal $program:literal, $ask:expr, $before:literal, $moves:ident, $installs:expr, $install:literal;)*) => {
        /// All of them but Rust, whose toolchains are chosen by what rustup knows.
        pub(crate) const KNOWN: &[Known] = &[$(Known {
            tool: Tool::$tool, name: $name, program: $program, ask: $ask, before: $before, moves: Moves::$moves,
            installs: $installs, install: $install,
        }),*];
    };
}

known! {
    Node "Node" "node", &["--version"], "v", Whole, NODE_INSTALLS,
        "`apt-get install nodejs npm`, or a newer one from https://nodejs.org";
    Pnpm "pnpm" "pnpm", &["--version"], "", Whole, &[("mise", "installs/pnpm/*"), ("home", ".local/share/pnpm")],
        "`npm install --global pnpm`";
    Yarn "Yarn" "yarn", &["--version"], "", Whole, &[("mise", "installs/yarn/*/bin"), ("asdf", "installs/yarn/*/bin")],
        "`npm install --global yarn`";
    Bun "Bun" "bun", &["--version"], "", Alone, &[("mise", "installs/bun/*/bin"), ("asdf", "installs/bun/*/bin"), ("home", ".bun/bin")],
        "`npm install --global bun`";
    Deno "Deno" "deno", &["--version"], "deno ", Alone,
        &[("mise", "installs/deno/*/bin"), ("asdf", "installs/deno/*/bin"), ("home", ".deno/bin")],
        "`npm install --global deno`";
    Python "Python" "python3", &["-c", "import platform, venv, ensurepip; print('Python', platform.python_version())"],
        "Python ", Whole,
        &[("pyenv", "versions/*/bin"), ("mise", "installs/python/*/bin"), ("asdf", "installs/python/*/bin"), ("uv", "*/bin")],
        "`apt-get install python3 python3-venv`";
    Uv "uv" "uv", &["--version"], "uv ", Alone, &[("mise", "installs/uv/*/bin"), ("home", ".local/bin"), ("home", ".cargo/bin")],
        "`pip install uv`, or see https://docs.astral.sh/uv";
    Poetry "Poetry" "poetry", &["--version"], "version ", Whole, &[("home", ".local/bin")],
        "`apt-get install python3-poetry`";
    Pipenv "Pipenv" "pipenv", &["--version"], "version ", Whole, &[("home", ".local/bin")],
        "`apt-get install pipenv`";
    Go "Go" "go", &["version"], "go version go", Whole,
        &[("mise", "installs/go/*/bin"), ("asdf", "installs/golang/*/go/bin"), ("home", "sdk/*/bin")],
        "`apt-get install golang`, or a newer one from https://go.dev/dl";
    Ruby "Ruby" "ruby", &["--version"], "ruby ", Not,
        &[("rbenv", "versions/*/bin"), ("mise", "installs/ruby/*/bin"), ("asdf", "installs/ruby/*/bin")],
        "`apt-get install ruby ruby-dev build-essential`";
    Bundler "Bundler" "bundle", &["--version"], "version ", Not,
        &[("rbenv", "versions/*/bin"), ("mise", "installs/ruby/*/bin"), ("asdf", "installs/ruby/*/bin")],
        "`apt-get install bundler`";
    Php "PHP" "php", &["--version"], "PHP ", Not, &[("mise", "installs/php/*/bin"), ("asdf", "installs/php/*/bin")],
        "`apt-get install php-cli php-mbstring php-xml php-curl`";
    Composer "Composer" "composer", &["--version", "--no-ansi"], "version ", Alone, &[("home", ".local/bin")],
        "`apt-get install composer`";
    Java "Java" "java", &["-version"], "version \"", Whole,
        &[("sdkman", "candidates/java/*/bin"), ("mise", "installs/java/*/bin"), ("asdf", "installs/java/*/bin")],
        "`apt-get install default-jdk-headless`";
    Maven "Maven" "mvn", &["--version"], "Apache Maven ", Whole,
        &[("sdkman", "candidates/maven/*/bin"), ("mise", "installs/maven/*/bin"), ("asdf", "installs/maven/*/bin")],
        "`apt-get install maven`";
    Gradle "Gradle" "gradle", &["--version"], "Gradle ", Whole,
        &[("sdkman", "candidates/gradle/*/bin"), ("mise", "installs/gradle/*/bin"), ("asdf", "installs/gradle/*/bin")],
        "`apt-get install gradle`, or commit the wrapper `gradlew`";
    Dotnet ".NET" "dotnet", &["--version"], "", Whole, &[("dotnet", ""), ("mise", "dotnet-root")],
        "the SDK from https://dotnet.microsoft.com/download";
    Elixir "Elixir" "elixir", &["--version"], "Elixir ", Not, &[("mise", "installs/elixir/*/bin"), ("asdf", "installs/elixir/*/bin")],
        "`apt-get install elixir`";
    Make "make" "make", &["--version"], "GNU Make ", Not, &[], "`apt-get install make`";
}
