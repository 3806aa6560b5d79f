//! The README's first lines work when pasted.

use std::process::Command;

use crate::both_engines;
use crate::harness::App;

both_engines! {
    async fn the_first_session_works_when_pasted(engine: Engine) {
        let app = App::start(engine).await;
        let readme = include_str!("../../README.md");
        let block = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(block.lines().count(), 5, "the first session has five lines");
        let script = block.replace("localhost:8080", app.url.trim_start_matches("http://"));
        // Another verification after the last line, to see the key refused.
        let verify = script.lines().nth(3).unwrap();
        let output = tokio::task::spawn_blocking({
            let script = format!("set -e\n{script}{verify}\n");
            move || Command::new("sh").arg("-c").arg(script).output().unwrap()
        })
        .await
        .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
        let places: Vec<_> = ["\"message\":\"User registered\"", "\"code\":\"VALID\"", "\"message\":\"Key revoked\"", "\"code\":\"REVOKED\""]
            .map(|expected| said.find(expected).unwrap_or_else(|| panic!("no {expected} in {said}")))
            .to_vec();
        assert!(places.is_sorted(), "{said}");
    }
}

#[test]
fn commands_in_the_readme_exist() {
    let readme = include_str!("../../README.md");
    let makefile = include_str!("../../Makefile");
    for line in readme.lines().filter(|line| line.starts_with("make ")) {
        let target = line.split_whitespace().nth(1).unwrap();
        assert!(makefile.contains(&format!("\n{target}: ")), "no target {target} in the Makefile");
    }
}
