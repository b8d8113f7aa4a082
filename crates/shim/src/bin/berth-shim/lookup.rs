//! Where the app's program may lie.

use std::ffi::CString;

/// The paths to try for `program`: itself when it holds a slash, else one in each folder of the `PATH` among `env`.
pub(crate) fn candidates(program: &str, env: &[String]) -> Vec<CString> {
    if program.contains('/') {
        return CString::new(program).into_iter().collect();
    }
    let path =
        env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("/usr/local/bin:/usr/bin:/bin");
    path.split(':')
        // An empty folder means the current one to a shell, which is how a planted program gets run.
        .filter(|folder| !folder.is_empty())
        .filter_map(|folder| CString::new(format!("{folder}/{program}")).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_means_a_path_and_else_the_apps_own_path_counts() {
        let env = ["A=1".to_owned(), "PATH=/x::/y".to_owned()];
        assert_eq!(candidates("bin/a", &env), [c"bin/a".to_owned()]);
        assert_eq!(candidates("a", &env), [c"/x/a".to_owned(), c"/y/a".to_owned()]);
        assert_eq!(candidates("a", &[]).len(), 3);
    }
}
