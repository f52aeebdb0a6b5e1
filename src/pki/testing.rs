//! Strangers that read what we make: the `openssl` program, where it is installed.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `openssl` with `input` on its standard input; its output, or what it complained about.
pub(crate) fn openssl(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    // It may have left before reading all; its answer is what counts.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }
}
