//! Java: Maven, Gradle, or a source file by itself.

use berth_spec::manifest::Builder;

use crate::detect::NothingFits;
use crate::detect::rule::{Framework, Language, Line, Manager, Serve};
use crate::detect::sign::Sign::{self, All, Any, File, Known, Not, Says};
use crate::detect::view::{Facts, View, means};
use crate::recipe::Tool;
use crate::tree::Node;

pub(in crate::detect) const JAVA: Language = Language {
    builder: Builder::Java,
    name: "a Java app",
    fits: Any(&[File("pom.xml"), File("build.gradle"), File("build.gradle.kts"), File("*.java")]),
    tool: Tool::Java,
    needed_to_run: true,
    programs: &["java", "mvn", "./mvnw", "gradle", "./gradlew"],
    read,
    managers: &MANAGERS,
    frameworks: &FRAMEWORKS,
    env: &[],
    caches: &[
        ("M2_REPOSITORY", "maven"),
        ("MAVEN_USER_HOME", "maven-wrapper"),
        ("GRADLE_USER_HOME", "gradle"),
    ],
    path: &[],
    hint: "write `[processes]` with `web = \"java -jar target/NAME.jar\"` into berth.toml",
};

const MAVEN: Sign = File("pom.xml");
const GRADLE: Sign = Any(&[File("build.gradle"), File("build.gradle.kts")]);

/// These install nothing by themselves: the build does. A wrapper in the source brings its own Maven or Gradle.
const MANAGERS: [Manager; 2] = [
    Manager {
        name: "Maven",
        fits: All(&[MAVEN, Not(&Known("maven_wrapper"))]),
        tool: Some(Tool::Maven),
        ..Manager::NONE
    },
    Manager {
        name: "Gradle",
        fits: All(&[GRADLE, Not(&MAVEN), Not(&Known("gradle_wrapper"))]),
        tool: Some(Tool::Gradle),
        ..Manager::NONE
    },
];

const PACKAGE: Line =
    Line::always("{maven} --batch-mode -DskipTests -Dmaven.repo.local=$M2_REPOSITORY package");
const BOOT_JAR: Line = Line::always("{gradle} --no-daemon --console=plain bootJar");
const SHADOW_JAR: Line = Line::always("{gradle} --no-daemon --console=plain shadowJar");
/// The jar that can be run by itself has no name that could be known; one with all dependencies is taken before others.
const MAVEN_JAR: Line = Line {
    when: Sign::Always,
    text: "for jar in target/*-jar-with-dependencies.jar target/*-all.jar target/*-fat.jar target/*-runner.jar target/*.jar; do case $jar in *-sources.jar|*-javadoc.jar|*/original-*) ;; *) test -f \"$jar\" && exec cp \"$jar\" app.jar;; esac; done; echo 'the build made no jar in target/' >&2; exit 1",
    does: "the jar that was made becomes app.jar",
};
const GRADLE_JAR: Line = Line {
    when: Sign::Always,
    text: "for jar in build/libs/*-all.jar build/libs/*.jar; do case $jar in *-sources.jar|*-javadoc.jar|*-plain.jar) ;; *) test -f \"$jar\" && exec cp \"$jar\" app.jar;; esac; done; echo 'the build made no jar in build/libs/' >&2; exit 1",
    does: "the jar that was made becomes app.jar",
};

const FRAMEWORKS: [Framework; 9] = [
    Framework {
        name: "Quarkus with Maven",
        fits: All(&[MAVEN, Says("pom.xml", "io.quarkus")]),
        build: &[PACKAGE],
        serve: Serve::Run(
            "java -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port=$PORT -jar target/quarkus-app/quarkus-run.jar",
        ),
        ..Framework::NONE
    },
    Framework {
        name: "Quarkus with Gradle",
        fits: Says("build.gradle*", "io.quarkus"),
        build: &[Line::always("{gradle} --no-daemon --console=plain quarkusBuild")],
        serve: Serve::Run(
            "java -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port=$PORT -jar build/quarkus-app/quarkus-run.jar",
        ),
        ..Framework::NONE
    },
    Framework {
        name: "Spring Boot with Maven",
        fits: All(&[MAVEN, Says("pom.xml", "org.springframework.boot")]),
        build: &[PACKAGE, MAVEN_JAR],
        serve: Serve::Run("java -Dserver.address=127.0.0.1 -Dserver.port=$PORT -jar app.jar"),
        ..Framework::NONE
    },
    Framework {
        name: "Spring Boot with Gradle",
        fits: Says("build.gradle*", "org.springframework.boot"),
        build: &[BOOT_JAR, GRADLE_JAR],
        serve: Serve::Run("java -Dserver.address=127.0.0.1 -Dserver.port=$PORT -jar app.jar"),
        ..Framework::NONE
    },
    Framework {
        name: "Micronaut with Maven",
        fits: All(&[MAVEN, Says("pom.xml", "io.micronaut")]),
        build: &[PACKAGE, MAVEN_JAR],
        serve: Serve::Run(
            "java -Dmicronaut.server.host=127.0.0.1 -Dmicronaut.server.port=$PORT -jar app.jar",
        ),
        ..Framework::NONE
    },
    Framework {
        name: "Micronaut with Gradle",
        fits: Says("build.gradle*", "io.micronaut"),
        build: &[SHADOW_JAR, GRADLE_JAR],
        serve: Serve::Run(
            "java -Dmicronaut.server.host=127.0.0.1 -Dmicronaut.server.port=$PORT -jar app.jar",
        ),
        ..Framework::NONE
    },
    Framework {
        name: "a program built by Maven",
        fits: MAVEN,
        build: &[PACKAGE, MAVEN_JAR],
        serve: Serve::Run("java -jar app.jar"),
        ..Framework::NONE
    },
    Framework {
        name: "a program built by Gradle",
        fits: All(&[GRADLE, Known("gradle_name")]),
        build: &[Line::always("{gradle} --no-daemon --console=plain installDist")],
        serve: Serve::Run("build/install/{gradle_name}/bin/{gradle_name}"),
        ..Framework::NONE
    },
    Framework {
        name: "Java source",
        fits: Known("java_main"),
        build: &[Line::always("javac -d classes {java_file}")],
        serve: Serve::Run("java -cp classes {java_main}"),
        ..Framework::NONE
    },
];

/// The elements of a pom.xml that say for which Java it is written.
const POM_VERSIONS: [&str; 4] =
    ["maven.compiler.release", "java.version", "maven.compiler.target", "maven.compiler.source"];

fn read(view: &View<'_>) -> Result<Option<Facts>, NothingFits> {
    let mut facts = Facts::default();
    wrapper(view, &mut facts, ("maven_wrapper", "mvnw"), ("maven", "mvn"));
    wrapper(view, &mut facts, ("gradle_wrapper", "gradlew"), ("gradle", "gradle"));
    let pom = view.text("pom.xml")?.unwrap_or_default();
    if let Some((name, version)) = POM_VERSIONS.iter().find_map(|name| Some((name, element(&pom, name)?))) {
        facts.versions.push((format!("{name} of pom.xml"), format!(">={version}")));
    }
    for line in view.text("system.properties")?.unwrap_or_default().lines() {
        if let Some(version) = line.trim().strip_prefix("java.runtime.version=") {
            facts.versions.insert(0, ("system.properties".to_owned(), version.trim().to_owned()));
        }
    }
    for path in ["settings.gradle", "settings.gradle.kts"] {
        let text = view.text(path)?.unwrap_or_default();
        let name = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("rootProject.name")?.split(['"', '\'']).nth(1));
        if let Some(name) = name.filter(|name| !name.is_empty() && !name.contains('/')) {
            facts.know("gradle_name", name, path);
        }
    }
    for path in view.paths().filter(|path| means("*.java", path)).take(50) {
        let text = view.text(path)?.unwrap_or_default();
        if text.contains("void main(") && !facts.values.contains_key("java_main") {
            let class = path.trim_end_matches(".java");
            let package =
                text.lines().find_map(|line| line.trim().strip_prefix("package ")?.strip_suffix(';'));
            let name =
                package.map_or_else(|| class.to_owned(), |package| format!("{}.{class}", package.trim()));
            facts.know("java_main", name, path);
            facts.know("java_file", path, path);
        }
    }
    if facts.values.contains_key("java_main") || view.has("pom.xml") || view.find("build.gradle*").is_some() {
        return Ok(Some(facts));
    }
    Ok(None)
}

/// Which program builds: the wrapper of the source, when it may be executed, else the machine's.
fn wrapper(
    view: &View<'_>,
    facts: &mut Facts,
    (known, file): (&'static str, &str),
    (name, program): (&'static str, &str),
) {
    if matches!(view.tree().node(file), Some(Node::File { exec: true, .. })) {
        facts.know(known, "", file);
        facts.know(name, format!("./{file}"), file);
    } else {
        facts.know(name, program, "");
    }
}

/// The text of the first element `name`, when that is a plain version.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once('<')?;
    let inside = inside.trim();
    (!inside.is_empty() && inside.chars().all(|c| c.is_ascii_digit() || c == '.')).then_some(inside)
}
