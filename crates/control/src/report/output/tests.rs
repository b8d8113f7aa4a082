//! Outputs as the runtimes wrote them, and what is told of each.

use super::*;

/// The output, what is told of it, and the variable that it misses.
const SAMPLES: &[(&str, &str, Option<&str>)] = &[
    // Node 20.
    (
        "listening soon
/app/server.js:2
const parts = process.env.REGIONS.split(',');
                                  ^

TypeError: Cannot read properties of undefined (reading 'split')
    at Object.<anonymous> (/app/server.js:2:35)
    at Module._compile (node:internal/modules/cjs/loader:1521:14)
    at node:internal/main/run_main_module:28:49

Node.js v20.20.2",
        "/app/server.js:2
const parts = process.env.REGIONS.split(',');
TypeError: Cannot read properties of undefined (reading 'split')
    at Object.<anonymous> (/app/server.js:2:35)",
        None,
    ),
    (
        "node:internal/modules/cjs/loader:1210
  throw err;
  ^

Error: Cannot find module 'express'
Require stack:
- /app/b.js
    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15)
    at require (node:internal/modules/helpers:182:18)
    at Object.<anonymous> (/app/b.js:1:17)
    at Function.executeUserEntryPoint [as runMain] (node:internal/modules/run_main:164:12) {
  code: 'MODULE_NOT_FOUND',
  requireStack: [ '/app/b.js' ]
}

Node.js v20.20.2",
        "Error: Cannot find module 'express'
Require stack:
- /app/b.js
    at Object.<anonymous> (/app/b.js:1:17)",
        None,
    ),
    (
        "node:events:502
      throw er; // Unhandled 'error' event
      ^

Error: listen EADDRINUSE: address already in use :::3000
    at Server.setupListenHandle [as _listen2] (node:net:1908:16)
    at Object.<anonymous> (/app/c.js:1:73)
Emitted 'error' event on Server instance at:
    at emitErrorNT (node:net:1944:8)
    at process.processTicksAndRejections (node:internal/process/task_queues:82:21) {
  code: 'EADDRINUSE',
  port: 3000
}

Node.js v20.20.2",
        "Error: listen EADDRINUSE: address already in use :::3000
    at Object.<anonymous> (/app/c.js:1:73)",
        None,
    ),
    (
        "> shop@1.0.0 start
> node server.js

PrismaClientInitializationError: error: Environment variable not found: DATABASE_URL.
    at r (/app/node_modules/@prisma/client/runtime/library.js:111:1)
npm error Lifecycle script `start` failed with error:
npm error code 1",
        "PrismaClientInitializationError: error: Environment variable not found: DATABASE_URL.",
        Some("DATABASE_URL"),
    ),
    (
        "npm error Missing script: \"start\"
npm error
npm error To see a list of scripts, run:
npm error   npm run",
        "npm error Missing script: \"start\"",
        None,
    ),
    // Python 3.13.
    (
        "Traceback (most recent call last):
  File \"/app/a.py\", line 6, in <module>
    main()
  File \"/app/a.py\", line 3, in settings
    return os.environ[\"DATABASE_URL\"]
           ~~~~~~~~~~^^^^^^^^^^^^^^^^
  File \"<frozen os>\", line 679, in __getitem__
KeyError: 'DATABASE_URL'",
        "Traceback (most recent call last):
  File \"/app/a.py\", line 3, in settings
    return os.environ[\"DATABASE_URL\"]
KeyError: 'DATABASE_URL'",
        Some("DATABASE_URL"),
    ),
    (
        "Traceback (most recent call last):
  File \"/app/c.py\", line 2, in <module>
    int(\"x\")
ValueError: invalid literal for int() with base 10: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File \"/app/c.py\", line 4, in <module>
    raise RuntimeError(\"cannot read the settings\") from e
RuntimeError: cannot read the settings",
        "Traceback (most recent call last):
  File \"/app/c.py\", line 4, in <module>
    raise RuntimeError(\"cannot read the settings\") from e
RuntimeError: cannot read the settings",
        None,
    ),
    (
        "[2026-11-21 07:00:00 +0000] [12] [INFO] Starting gunicorn 22.0.0
[2026-11-21 07:00:00 +0000] [13] [ERROR] Exception in worker process
Traceback (most recent call last):
  File \"/app/.venv/lib/python3.11/site-packages/gunicorn/arbiter.py\", line 609, in spawn_worker
    worker.init_process()
  File \"/app/shop/settings.py\", line 12, in <module>
    SECRET_KEY = env(\"SECRET_KEY\")
  File \"/app/.venv/lib/python3.11/site-packages/environ/environ.py\", line 409, in get_value
    raise ImproperlyConfigured(error_msg) from exc
django.core.exceptions.ImproperlyConfigured: Set the SECRET_KEY environment variable
[2026-11-21 07:00:00 +0000] [13] [INFO] Worker exiting (pid: 13)",
        "Traceback (most recent call last):
  File \"/app/shop/settings.py\", line 12, in <module>
    SECRET_KEY = env(\"SECRET_KEY\")
django.core.exceptions.ImproperlyConfigured: Set the SECRET_KEY environment variable
[2026-11-21 07:00:00 +0000] [13] [INFO] Worker exiting (pid: 13)",
        Some("SECRET_KEY"),
    ),
    // Rust 1.95.
    (
        "
thread 'main' (31314) panicked at src/main.rs:1:113:
DATABASE_URL must be set
stack backtrace:
   0: __rustc::rust_begin_unwind
             at /rustc/59807616e1fa/library/std/src/panicking.rs:689:5
   1: core::panicking::panic_fmt
   5: shop::main
             at ./src/main.rs:1:113
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.",
        "thread 'main' (31314) panicked at src/main.rs:1:113:
DATABASE_URL must be set
   5: shop::main",
        Some("DATABASE_URL"),
    ),
    ("starting\nError: NotPresent", "Error: NotPresent", None),
    // Go 1.19.
    (
        "panic: DATABASE_URL must be set

goroutine 1 [running]:
main.settings(...)
\t/app/a.go:3
main.main()
\t/app/a.go:4 +0x72",
        "panic: DATABASE_URL must be set
\t/app/a.go:3",
        Some("DATABASE_URL"),
    ),
    (
        "2026/11/21 07:02:18 starting\n2026/11/21 07:02:18 listen tcp: address 99999: invalid port",
        "2026/11/21 07:02:18 listen tcp: address 99999: invalid port",
        None,
    ),
    // Java 17.
    (
        "Exception in thread \"main\" java.lang.IllegalStateException: cannot start
\tat shop.Main.main(Main.java:1)
Caused by: java.lang.NumberFormatException: Cannot parse null string
\tat java.base/java.lang.Integer.parseInt(Integer.java:630)
\tat shop.Main.main(Main.java:1)
\t... 12 more",
        "Exception in thread \"main\" java.lang.IllegalStateException: cannot start
\tat shop.Main.main(Main.java:1)
Caused by: java.lang.NumberFormatException: Cannot parse null string",
        None,
    ),
    (
        "Caused by: java.lang.IllegalArgumentException: Could not resolve placeholder 'DATABASE_URL' in value \"${DATABASE_URL}\"
\tat org.springframework.util.PropertyPlaceholderHelper.parse(PropertyPlaceholderHelper.java:180)",
        "Caused by: java.lang.IllegalArgumentException: Could not resolve placeholder 'DATABASE_URL' in value \"${DATABASE_URL}\"",
        Some("DATABASE_URL"),
    ),
    // Ruby 3.1.
    (
        "a.rb:2:in `fetch': key not found: \"DATABASE_URL\" (KeyError)
\tfrom a.rb:2:in `settings'
\tfrom a.rb:4:in `<main>'",
        "a.rb:2:in `fetch': key not found: \"DATABASE_URL\" (KeyError)
\tfrom a.rb:2:in `settings'",
        Some("DATABASE_URL"),
    ),
    (
        "<internal:/usr/lib/ruby/vendor_ruby/rubygems/core_ext/kernel_require.rb>:85:in `require': cannot load such file -- nonesuch (LoadError)
\tfrom <internal:/usr/lib/ruby/vendor_ruby/rubygems/core_ext/kernel_require.rb>:85:in `require'
\tfrom c.rb:1:in `<main>'",
        "<internal:/usr/lib/ruby/vendor_ruby/rubygems/core_ext/kernel_require.rb>:85:in `require': cannot load such file -- nonesuch (LoadError)
\tfrom c.rb:1:in `<main>'",
        None,
    ),
    // PHP 8.2.
    (
        "PHP Fatal error:  Uncaught RuntimeException: DATABASE_URL is not set in /app/a.php:2
Stack trace:
#0 /app/a.php(3): settings()
#1 {main}
  thrown in /app/a.php on line 2",
        "PHP Fatal error:  Uncaught RuntimeException: DATABASE_URL is not set in /app/a.php:2
#0 /app/a.php(3): settings()",
        Some("DATABASE_URL"),
    ),
    // Shells, and programs that say it in their own words.
    ("sh: 1: gunicron: not found", "sh: 1: gunicron: not found", None),
    (
        "reading config\nusing 4 threads\n\u{1b}[31mFATAL\u{1b}[0m could not connect to the database\nbye",
        "FATAL could not connect to the database",
        None,
    ),
    ("one\ntwo\n\nthree", "one\ntwo\nthree", None),
    ("", "", None),
];

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn of_each_runtime_the_lines_that_say_why() {
    for (output, told, _) in SAMPLES {
        assert_eq!(that_matter(&lines(output)).join("\n"), *told, "of\n{output}");
    }
}

#[test]
fn a_missing_variable_is_named() {
    for (output, _, variable) in SAMPLES {
        assert_eq!(missing_variable(&lines(output)).as_ref().map(EnvName::as_str), *variable, "{output}");
    }
    assert_eq!(missing_variable(&lines("PORT is not set")), None, "the platform sets it");
}

#[test]
fn the_last_run_is_told_and_not_the_one_before() {
    let twice = format!("{}\n{}", SAMPLES[5].0.replace("DATABASE_URL", "OLD_ONE"), SAMPLES[5].0);
    assert_eq!(that_matter(&lines(&twice)).join("\n"), SAMPLES[5].1);
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_printed_is_told_within_bounds(
            output in prop::collection::vec("(Traceback \\(most recent call last\\)|Caused by: |\\s{0,4}at |File \"|\\PC{0,9}|\u{1b}\\[|:\\d|\\p{Lu}_){0,6}", 0..40)
        ) {
            let told = that_matter(&output);
            prop_assert!(told.len() <= LINES && told.iter().all(|line| line.len() <= LINE_BYTES));
            prop_assert!(told.is_empty() == output.iter().all(|line| plain(line).trim().is_empty()) || told.is_empty());
            drop(missing_variable(&output));
        }
    }
}
