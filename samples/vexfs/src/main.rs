// SPDX-License-Identifier: GPL-2.0-only
//! vexctl: tells the state of the vexfs filesystem.

mod status;

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::exit;

const USAGE: &str = "\
Usage: vexctl status [--json]
       vexctl --version | --help

status   whether vexfs is loaded, which version, and what each mount uses

Exit status: 0 it is loaded, 3 it is not, 2 wrong usage, 1 any other failure.
";

const FAILED: i32 = 1;
const WRONG_USAGE: i32 = 2;
const NOT_LOADED: i32 = 3;

/// The version of the module's build: VEXFS_VERSION, or else the file VERSION.
fn version() -> &'static str {
    match option_env!("VEXFS_VERSION") {
        Some(version) if !version.is_empty() => version,
        _ => include_str!("../VERSION").trim_end(),
    }
}

/// What to write to stdout, and the exit status.
fn run(args: &[&str], proc: &Path) -> Result<(String, i32), (String, i32)> {
    let json = match args {
        ["--version" | "-V"] => return Ok((format!("vexctl {}\n", version()), 0)),
        ["--help" | "-h"] => return Ok((USAGE.to_string(), 0)),
        ["status"] => false,
        ["status", "--json"] => true,
        _ => return Err((USAGE.to_string(), WRONG_USAGE)),
    };
    match status::read(proc) {
        Ok(found) => {
            let code = if found.is_some() { 0 } else { NOT_LOADED };
            let show = if json {
                status::to_json
            } else {
                status::to_text
            };
            Ok((show(&found), code))
        }
        Err(error) => Err((format!("vexctl: {}: {error}\n", proc.display()), FAILED)),
    }
}

fn main() {
    let args: Vec<String> = env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words, Path::new("/proc")) {
        Ok((text, code)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => exit(code),
            Err(_) => exit(FAILED), // nobody reads it
        },
        Err((text, code)) => {
            let _ = io::stderr().write_all(text.as_bytes());
            exit(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(args: &[&str]) -> i32 {
        match run(args, Path::new("/nonexistent")) {
            Ok((_, code)) | Err((_, code)) => code,
        }
    }

    #[test]
    fn version_is_one_line() {
        let (text, code) = run(&["--version"], Path::new("/nonexistent")).unwrap();
        assert_eq!(text, format!("vexctl {}\n", version()));
        assert_eq!(code, 0);
    }

    #[test]
    fn crate_has_the_version_of_the_file() {
        assert_eq!(
            env!("CARGO_PKG_VERSION"),
            include_str!("../VERSION").trim_end()
        );
    }

    #[test]
    fn exit_status_tells_the_case() {
        assert_eq!(code(&["--help"]), 0);
        assert_eq!(code(&["status"]), NOT_LOADED);
        assert_eq!(code(&["status", "--json"]), NOT_LOADED);
        for wrong in [
            &[][..],
            &["stat"],
            &["status", "--yaml"],
            &["--version", "status"],
        ] {
            assert_eq!(code(wrong), WRONG_USAGE);
        }
    }
}
