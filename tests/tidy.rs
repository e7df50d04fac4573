//! Polices how the repository is written: import order, file length, heads of modules, names, `unwrap`, the README's
//! map, and nothing that belongs to one machine.
//!
//! Each rule is a function from a file to its violations, shown to catch a planted one before it is trusted.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Longest Rust file, in lines.
const FILE_LINES_MAX: usize = 500;
/// Shortest text of an `expect` that can state an invariant, in bytes.
const INVARIANT_BYTES_MIN: usize = 10;
/// Shortest first lines that can say what a file is, in bytes.
const HEAD_BYTES_MIN: usize = 12;
/// Modules of `src/` in the order of their imports; those of one row do not import each other.
const LAYERS: [&[&str]; 6] = [
    &["config"],
    &["telemetry"],
    &["store"],
    &["auth", "publish", "delivery"],
    &["transport", "api", "console", "bench"],
    &["cli"],
];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 10] =
    ["util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "shared", "lib_util"];
/// What would give the protocol crate a clock, randomness or I/O.
const IMPURE: [&str; 9] = ["tokio", "redis", "axum", "hyper", "Instant", "SystemTime", "rand", "uuid", "tungstenite"];

/// A file of the repository.
#[derive(Clone, Debug)]
struct File {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Only compiled for tests: files named so, and everything under a `tests` or
    /// `simulation` folder.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name == "tests.rs"
            || ["_test.rs", "_tests.rs"].iter().any(|ending| name.ends_with(ending))
            || name.starts_with("test_")
            || self.path.split('/').any(|part| part == "tests" || part == "simulation")
    }

    /// Lines with their numbers that are code and not comments, up to a `#[cfg(test)] mod …` that ends the file.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod ").filter(|start| self.text[*start..].contains(" {\n"));
        let text = &self.text[..end.unwrap_or(self.text.len())];
        text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| {
            let line = line.trim_start();
            !line.starts_with("//")
        })
    }
}

/// Every file that is tracked or would be, with text that is UTF-8.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success());
    let paths: BTreeSet<String> = match listed {
        Some(output) => String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        None => walk(root, ""),
    };
    assert!(paths.contains("Cargo.toml"), "the list of files is wrong: {paths:?}");
    let read = |path: String| Some(File { text: std::fs::read_to_string(root.join(&path)).ok()?, path });
    paths.into_iter().filter_map(read).collect()
}

/// For a copy of the repository without git.
fn walk(root: &Path, folder: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for entry in std::fs::read_dir(root.join(folder)).expect("the repository can be read").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.path().is_dir() {
            if !["target", ".git", "node_modules", "homing-data"].contains(&name.as_str()) {
                paths.extend(walk(root, &path));
            }
        } else {
            paths.insert(path);
        }
    }
    paths
}

fn check(rule: impl Fn(&File) -> Vec<String>) {
    let violations: Vec<String> = files().iter().flat_map(rule).collect();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| !character.is_alphanumeric() && character != '_').filter(|word| !word.is_empty())
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Modules of `src/` that a file names: `crate::x`, `crate::{x, y}`, and `super::super::x` up to the root.
fn imports(file: &File) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: Vec<(usize, &str)> = file.code().collect();
    for (index, (number, line)) in code.iter().enumerate() {
        for start in ["crate::", "super::super::"] {
            for (position, _) in line.match_indices(start) {
                if line[..position].ends_with(|character: char| character.is_alphanumeric() || "_$".contains(character))
                {
                    continue;
                }
                let rest = line[position + start.len()..].trim_start_matches("super::");
                if let Some(first) = rest.strip_prefix('{') {
                    // The group may go on over several lines; only its first level names modules.
                    let following = code[index + 1..].iter().map(|(_, line)| *line);
                    let group: String = std::iter::once(first).chain(following).collect::<Vec<_>>().join(" ");
                    found.extend(first_level(&group).into_iter().map(|name| (*number, name)));
                } else if let Some(name) = words(rest).next().filter(|name| rest.starts_with(*name)) {
                    found.push((*number, name.to_owned()));
                }
            }
        }
    }
    found
}

/// First names of the members of a `{…}` group, given what follows its opening brace.
fn first_level(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut names) = (1, String::new(), Vec::new());
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && character == ',') {
            names.extend(words(&member).next().map(str::to_owned));
            member.clear();
        } else {
            member.push(character);
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn import_order(file: &File) -> Vec<String> {
    let Some(module) = file.path.strip_prefix("src/").and_then(|path| path.split_once('/')).map(|(first, _)| first)
    else {
        return Vec::new();
    };
    if !file.is_rust() {
        return Vec::new();
    }
    let Some(own) = layer(module) else {
        return vec![format!("{}: src/{module} has no place in the import order", file.path)];
    };
    let wrong = |(number, name): (usize, String)| {
        let other = layer(&name)?;
        (name != module && other >= own).then(|| format!("{}:{number}: {module} must not import {name}", file.path))
    };
    imports(file).into_iter().filter_map(wrong).collect()
}

fn purity(file: &File) -> Vec<String> {
    let is_code = file.path.starts_with("protocol/src/") && file.is_rust();
    if file.is_test() || !is_code && file.path != "protocol/Cargo.toml" {
        return Vec::new();
    }
    let impure = |(number, line): (usize, &str)| {
        let word = words(line).find(|word| IMPURE.contains(word))?;
        // "rand" and others stand inside of texts and names of dev-dependencies only in comments, which are not code.
        Some(format!("{}:{number}: the protocol crate must not name {word}", file.path))
    };
    file.code().filter_map(impure).collect()
}

fn length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if file.is_rust() && lines > FILE_LINES_MAX {
        return vec![format!("{}: {lines} lines; split it by nouns below {FILE_LINES_MAX}", file.path)];
    }
    Vec::new()
}

fn head(file: &File) -> Vec<String> {
    let is_ours = file.path.starts_with("src/") || file.path.starts_with("protocol/src/");
    if !file.is_rust() || !is_ours || file.is_test() {
        return Vec::new();
    }
    let head: Vec<&str> = file.text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let text = head.join(" ");
    if text.len() < HEAD_BYTES_MIN || text.contains("under construction") {
        return vec![format!("{}: opens without a //! that says what it is", file.path)];
    }
    let folder_head = file.path.ends_with("/mod.rs");
    if folder_head && !(text.contains("must not") && text.to_lowercase().contains("invariant")) {
        return vec![format!("{}: its //! must say what it owns, what it must not know, and its invariant", file.path)];
    }
    Vec::new()
}

fn name(file: &File) -> Vec<String> {
    let empty = |part: &&str| EMPTY_NAMES.contains(&part.split('.').next().unwrap_or_default());
    let is_code = [".rs", ".lua", ".js", ".ts"].iter().any(|ending| file.path.ends_with(ending));
    match file.path.split('/').find(empty) {
        Some(part) if is_code => vec![format!("{}: {part:?} says nothing about what is inside", file.path)],
        _ => Vec::new(),
    }
}

fn unwraps(file: &File) -> Vec<String> {
    let is_ours = file.path.starts_with("src/") || file.path.starts_with("protocol/src/");
    if !file.is_rust() || !is_ours || file.is_test() {
        return Vec::new();
    }
    let code: Vec<(usize, &str)> = file.code().collect();
    let mut violations = Vec::new();
    for (index, (number, line)) in code.iter().enumerate() {
        if line.contains(".unwrap()") {
            violations.push(format!("{}:{number}: unwrap() outside of tests", file.path));
        }
        for (position, call) in line.match_indices(".expect(") {
            let same = line[position + call.len()..].trim_start();
            let next = code.get(index + 1).map_or("", |(_, line)| line.trim_start());
            let argument = if same.is_empty() { next } else { same };
            let text = argument.strip_prefix('"').and_then(|text| text.split('"').next());
            // A method of one's own may be called `expect` and take no text.
            if argument.starts_with('"') && text.unwrap_or_default().len() < INVARIANT_BYTES_MIN {
                violations.push(format!("{}:{number}: expect() must state why it cannot fail", file.path));
            }
        }
    }
    violations
}

/// What only exists on the machine where a file was written.
fn machine_traces(file: &File, places: &[String]) -> Vec<String> {
    let mut violations = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        if let Some(place) = places.iter().find(|place| line.contains(place.as_str())) {
            violations.push(format!("{}:{}: names {place}", file.path, index + 1));
        }
        let foreign_source = file.path.ends_with("Cargo.lock")
            && line.starts_with("source = ")
            && line != r#"source = "registry+https://github.com/rust-lang/crates.io-index""#;
        let foreign_package = file.path.ends_with("package-lock.json")
            && line.contains(r#""resolved":"#)
            && !line.contains(r#""https://registry.npmjs.org/"#);
        let replaced = file.path.contains(".cargo/config") && line.contains("replace-with");
        if foreign_source || foreign_package || replaced {
            violations.push(format!("{}:{}: not the public registry: {line}", file.path, index + 1));
        }
    }
    violations
}

/// The paths of the README's map: first words of the lines of the fenced block that follows a heading with "map" or
/// "repository" in it. An indented line is inside of the folder above it.
fn map_of(readme: &str) -> Option<Vec<String>> {
    let mut lines = readme.lines().skip_while(|line| {
        let line = line.to_lowercase();
        !(line.starts_with('#') && (words(&line).any(|word| word == "map") || line.contains("repository")))
    });
    lines.find(|line| line.starts_with("```"))?;
    let (mut paths, mut folders) = (Vec::new(), Vec::<(usize, String)>::new());
    for line in lines.take_while(|line| !line.starts_with("```")) {
        let indent = line.len() - line.trim_start().len();
        let Some(token) = line.split_whitespace().next() else { continue };
        folders.retain(|(depth, _)| *depth < indent);
        let parent = folders.last().map_or("", |(_, folder)| folder.as_str());
        let path = format!("{parent}{token}");
        if token.ends_with('/') {
            folders.push((indent, path.clone()));
        }
        paths.push(path);
    }
    Some(paths)
}

/// What is on the map and not on the disk, and which folders of the disk are not on the map.
fn map_violations(map: &[String], files: &[File]) -> Vec<String> {
    let mut violations = Vec::new();
    for path in map {
        let found = files.iter().any(|file| match path.strip_suffix('/') {
            Some(_) => file.path.starts_with(path.as_str()),
            None => file.path == *path,
        });
        if !found {
            violations.push(format!("README's map names {path}, which does not exist"));
        }
    }
    let folders: BTreeSet<String> = files.iter().filter_map(|file| folder_to_map(&file.path)).collect();
    let missing = folders.into_iter().filter(|folder| !map.contains(folder));
    violations.extend(missing.map(|folder| format!("README's map lacks {folder}")));
    violations
}

/// The folder of a file that belongs on the map: the first level, and the second of `src/`.
fn folder_to_map(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["src", module, _, ..] => Some(format!("src/{module}/")),
        [folder, _, ..] if !folder.starts_with('.') => Some(format!("{folder}/")),
        _ => None,
    }
}

#[test]
fn modules_import_in_one_direction() {
    let planted = "use crate::config::Limits;\nuse crate::{\n    store::{Key, keys},\n    api::x,\n};\nuse super::super::cli::y;\n";
    assert_eq!(
        import_order(&File::new("src/delivery/shard.rs", planted)),
        [
            "src/delivery/shard.rs:2: delivery must not import api",
            "src/delivery/shard.rs:6: delivery must not import cli"
        ]
    );
    assert_eq!(import_order(&File::new("src/api/x.rs", "// crate::cli\nlet x = crate::transport::y();")).len(), 1);
    assert_eq!(
        import_order(&File::new("src/api/x.rs", "use crate::api::y;\n#[cfg(test)]\nmod tests {\n use crate::cli;"))
            .len(),
        0
    );
    check(import_order);
}

#[test]
fn the_protocol_has_no_clock_no_randomness_and_no_io() {
    assert_eq!(purity(&File::new("protocol/src/x.rs", "use std::time::Instant;\n// tokio\nlet operand = 1;")).len(), 1);
    assert_eq!(purity(&File::new("protocol/Cargo.toml", "tokio = \"1\"")).len(), 1);
    check(purity);
}

#[test]
fn no_file_is_too_long() {
    assert_eq!(length(&File::new("src/x.rs", &"\n".repeat(501))).len(), 1);
    assert_eq!(length(&File::new("src/x.rs", &"\n".repeat(500))).len(), 0);
    check(length);
}

#[test]
fn every_file_opens_with_what_it_is() {
    assert_eq!(head(&File::new("src/x.rs", "use y;\n")).len(), 1);
    assert_eq!(head(&File::new("src/x.rs", "//! x\n")).len(), 1);
    assert_eq!(head(&File::new("src/x/mod.rs", "//! Owns something large and nice.\n")).len(), 1);
    check(head);
}

#[test]
fn no_module_has_an_empty_name() {
    assert_eq!(name(&File::new("src/common/x.rs", "")).len(), 1);
    assert_eq!(name(&File::new("src/api/utils.rs", "")).len(), 1);
    check(name);
}

#[test]
fn what_may_not_fail_says_why() {
    let planted =
        "x.unwrap();\ny.expect(\"\");\nz.expect(\n    \"no\",\n);\nw.expect(\"a device has a name\");\nv.unwrap_or(1);";
    assert_eq!(unwraps(&File::new("src/x.rs", planted)).len(), 3);
    assert_eq!(unwraps(&File::new("src/x.rs", "#[cfg(test)]\nmod tests {\n x.unwrap() }")).len(), 0);
    assert_eq!(unwraps(&File::new("src/x.rs", "#[cfg(test)]\nmod x_tests;\nx.unwrap();")).len(), 1);
    check(unwraps);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let planted = [
        File::new("docs/x.md", "see /secret/place/x"),
        File::new("Cargo.lock", "source = \"registry+http://mirror/\""),
    ];
    let place = ["/secret/place".to_owned()];
    assert!(planted.iter().all(|file| machine_traces(file, &place).len() == 1));
    // Where this repository lies, and where the one who runs this lives, unless that is a place that everybody has.
    let home = std::env::var("HOME").unwrap_or_default();
    let mut places = vec![env!("CARGO_MANIFEST_DIR").to_owned(), format!("{home}/.cargo"), format!("{home}/.rustup")];
    // In two halves, since this file is checked as well.
    places.extend([["/wo", "rk/"], ["/tmp", "/wt"], ["/home/", "runner"]].map(|halves| halves.concat()));
    check(|file| machine_traces(file, &places));
}

#[test]
fn the_map_in_the_readme_matches_the_disk() {
    let planted = "# x\n## Map of the repository\ntext\n```\nCargo.toml\nsrc/   x\n  api/   y\ngone/  z\n```\n";
    let disk = [File::new("Cargo.toml", ""), File::new("src/api/x.rs", ""), File::new("src/cli/x.rs", "")];
    let map = map_of(planted).expect("the planted map is one");
    assert_eq!(map, ["Cargo.toml", "src/", "src/api/", "gone/"]);
    assert_eq!(
        map_violations(&map, &disk),
        ["README's map names gone/, which does not exist", "README's map lacks src/cli/"]
    );

    let files = files();
    let readme = files.iter().find(|file| file.path == "README.md").expect("there is a README.md at the root");
    let map =
        map_of(&readme.text).expect("README.md has a heading with \"map\" or \"repository\" and a fenced block below");
    let violations = map_violations(&map, &files);
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
