//! How an app of each language is told where to listen.

use berth_spec::Command;

/// What a command or a reason names, and the way to the port in that language. The first that is named counts.
const WAYS: &[(&[&str], &str)] = &[
    (
        &["uvicorn", "gunicorn", "hypercorn", "daphne", "granian"],
        "--host and --port on its command line: `uvicorn app:app --host 0.0.0.0 --port $PORT`, `gunicorn --bind 0.0.0.0:$PORT app:app`",
    ),
    (
        &["manage.py"],
        "`python manage.py runserver 0.0.0.0:$PORT`, or `gunicorn --bind 0.0.0.0:$PORT project.wsgi`",
    ),
    (&["flask"], "`flask run --host 0.0.0.0 --port $PORT`"),
    (&["next"], "`next start --port $PORT`"),
    (&["vite"], "`vite preview --host 0.0.0.0 --port $PORT`"),
    (&["deno"], "`Deno.serve({ port: Number(Deno.env.get(\"PORT\")) }, handler)`"),
    (&["node", "npm", "npx", "pnpm", "yarn", "bun", "tsx"], "`app.listen(process.env.PORT)`"),
    (&["python", "python3", "streamlit"], "`int(os.environ[\"PORT\"])`"),
    (
        &["rails", "puma", "rackup", "ruby", "bundle"],
        "`ENV.fetch(\"PORT\")`, or `-p $PORT` on the command line",
    ),
    (&["php", "artisan"], "`php -S 0.0.0.0:$PORT`, or `php artisan serve --host 0.0.0.0 --port $PORT`"),
    (
        &["java", "mvn", "gradle"],
        "`Integer.parseInt(System.getenv(\"PORT\"))`, with Spring `server.port=${PORT}`",
    ),
    (&["dotnet"], "`--urls http://0.0.0.0:$PORT`, or the variable ASPNETCORE_URLS"),
    (&["mix", "elixir"], "`System.fetch_env!(\"PORT\")` in config/runtime.exs"),
    (&["cargo"], "`std::env::var(\"PORT\")`"),
    (&["go.mod", "go"], "`http.ListenAndServe(\":\"+os.Getenv(\"PORT\"), nil)`"),
];

/// What to change so that the app listens where it is asked for: read `PORT`, as in the code of its language.
#[must_use]
pub fn listen_on_port(command: Option<&Command>, why: &[String]) -> String {
    let command = command.map(ToString::to_string).unwrap_or_default();
    let way = way(&command).or_else(|| why.iter().find_map(|reason| way(reason)));
    match way {
        Some(way) => format!("read the port from the environment variable PORT, as in {way}"),
        None => "let the app listen on the port that it finds in the environment variable PORT".to_owned(),
    }
}

fn way(text: &str) -> Option<&'static str> {
    let separates = |c: char| c.is_whitespace() || "/\"'`,;:()[]&|".contains(c);
    let words: Vec<String> = text.split(separates).map(str::to_lowercase).collect();
    let named = |names: &[&str]| {
        // `python3.11` is python, `Cargo.toml` is cargo's.
        let is = |word: &String, name: &str| {
            word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '3']))
        };
        words.iter().any(|word| names.iter().any(|name| is(word, name)))
    };
    WAYS.iter().find(|(names, _)| named(names)).map(|(_, way)| *way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_known_by_the_command_or_by_what_was_detected() {
        for (command, why, expected) in [
            ("node server.js", "", "process.env.PORT"),
            ("npm start", "", "process.env.PORT"),
            ("npx next start", "", "next start --port $PORT"),
            ("gunicorn app:app", "", "--bind 0.0.0.0:$PORT"),
            (".venv/bin/python3.11 app.py", "", "os.environ[\"PORT\"]"),
            ("bundle exec puma", "", "ENV.fetch"),
            ("java -jar target/app.jar", "", "System.getenv"),
            ("./bin/server", "there is a Cargo.toml", "std::env::var"),
            ("./bin/server", "there is a go.mod", "os.Getenv"),
            ("./bin/server", "", "environment variable PORT"),
            ("goal-keeper", "there is a goal", "environment variable PORT"),
        ] {
            let command = Command::parse(command).unwrap();
            let said = listen_on_port(Some(&command), &[why.to_owned()]);
            assert!(said.contains(expected), "{command}: {said}");
        }
        assert!(listen_on_port(None, &[]).contains("PORT"));
    }
}
