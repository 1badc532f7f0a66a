//! `docker-compose.yml` and the `Dockerfile`, which cannot be run here: that they can be read, listen on this machine only, and
//! name only what the program knows.

use std::collections::BTreeSet;

use saphyr::{LoadableYamlNode, MappingOwned, YamlOwned};
use tidelog::settings::SETTINGS;

const COMPOSE: &str = include_str!("../../docker-compose.yml");
const DOCKERFILE: &str = include_str!("../../Dockerfile");

/// The services that are this program.
const OURS: [&str; 3] = ["command", "eventbus", "query"];

fn compose() -> YamlOwned {
    let mut documents = YamlOwned::load_from_str(COMPOSE).expect("docker-compose.yml is YAML");
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// What `key` of a mapping is, in itself or in what is merged into it.
fn get<'y>(mapping: &'y YamlOwned, key: &str) -> Option<&'y YamlOwned> {
    mapping
        .as_mapping_get(key)
        .or_else(|| get(mapping.as_mapping_get("<<")?, key))
}

fn services(compose: &YamlOwned) -> Vec<(String, &YamlOwned)> {
    entries(compose.as_mapping_get("services").expect("services"))
}

/// The entries of a mapping, those that are merged into it last.
fn entries(mapping: &YamlOwned) -> Vec<(String, &YamlOwned)> {
    let own: &MappingOwned = mapping.as_mapping().expect("a mapping");
    let mut entries = Vec::new();
    let mut merged = Vec::new();
    for (key, value) in own {
        match key.as_str().expect("a key is a text") {
            "<<" => merged = self::entries(value),
            key => entries.push((key.to_owned(), value)),
        }
    }
    entries.extend(merged);
    entries
}

fn texts(list: Option<&YamlOwned>) -> Vec<&str> {
    let items = list
        .and_then(YamlOwned::as_vec)
        .map(Vec::as_slice)
        .unwrap_or_default();
    items
        .iter()
        .map(|item| item.as_str().expect("a text"))
        .collect()
}

#[test]
fn compose_has_three_servers_and_our_three_services() {
    let compose = compose();
    let names: BTreeSet<_> = services(&compose)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected = ["command", "eventbus", "mongodb", "mysql", "query", "redis"].map(str::to_owned);
    assert_eq!(names, expected.into());
    for (name, service) in services(&compose)
        .into_iter()
        .filter(|(name, _)| OURS.contains(&name.as_str()))
    {
        assert_eq!(texts(get(service, "command")), ["serve", "--role", &name]);
        assert!(
            get(service, "build").is_some(),
            "{name} is not built from here"
        );
    }
    for (server, image) in [
        ("mysql", "mysql:8.4"),
        ("redis", "redis:8"),
        ("mongodb", "mongo:8"),
    ] {
        let (_, service) = services(&compose)
            .into_iter()
            .find(|(name, _)| name == server)
            .unwrap();
        assert_eq!(
            get(service, "image").and_then(YamlOwned::as_str),
            Some(image)
        );
    }
}

#[test]
fn compose_publishes_on_this_machine_only() {
    let compose = compose();
    for (name, service) in services(&compose) {
        assert!(get(service, "network_mode").is_none(), "{name}");
        let ports = get(service, "ports").unwrap_or_else(|| panic!("{name} publishes no port"));
        for port in ports.as_vec().expect("ports are a list") {
            let port = port.as_str().expect("a port is a text");
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
}

#[test]
fn compose_names_only_settings_that_the_program_knows() {
    let compose = compose();
    let known: BTreeSet<&str> = SETTINGS
        .iter()
        .flat_map(|setting| setting.env)
        .copied()
        .collect();
    for (name, service) in services(&compose)
        .into_iter()
        .filter(|(name, _)| OURS.contains(&name.as_str()))
    {
        let variables = entries(get(service, "environment").expect("an environment"));
        assert!(
            variables
                .iter()
                .any(|(variable, _)| variable == "DATABASE_URL"),
            "{name} has no DATABASE_URL"
        );
        for (variable, _) in variables {
            assert!(
                known.contains(variable.as_str()),
                "{name} sets {variable}, which is no setting"
            );
        }
    }
}

#[test]
fn compose_says_that_its_network_is_trusted_where_its_servers_do_not_show_who_they_are() {
    let compose = compose();
    for (name, service) in services(&compose)
        .into_iter()
        .filter(|(name, _)| OURS.contains(&name.as_str()))
    {
        let variables = entries(get(service, "environment").expect("an environment"));
        let trusted = variables
            .iter()
            .find(|(variable, _)| variable == "TIDELOG_INSECURE_BACKENDS");
        let trusted = trusted.and_then(|(_, value)| value.as_str());
        assert_eq!(trusted, Some("mysql,redis,mongodb"), "{name}");
    }
}

#[test]
fn compose_and_the_dockerfile_check_health() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let check =
            get(service, "healthcheck").unwrap_or_else(|| panic!("{name} has no health check"));
        let test = texts(get(check, "test")).join(" ");
        if OURS.contains(&name.as_str()) {
            assert!(test.contains("/health/ready"), "{name}: {test}");
            assert!(
                texts(get(check, "test")).contains(&"curl") && DOCKERFILE.contains("curl"),
                "{name}: {test}"
            );
        }
    }
}

#[test]
fn compose_waits_only_for_servers_that_it_has() {
    let compose = compose();
    let names: BTreeSet<_> = services(&compose)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for (name, service) in services(&compose) {
        for (needed, _) in get(service, "depends_on").map(entries).unwrap_or_default() {
            assert!(names.contains(&needed), "{name} waits for {needed}");
        }
    }
    let (_, command) = services(&compose)
        .into_iter()
        .find(|(name, _)| name == "command")
        .unwrap();
    let needed: Vec<_> = entries(get(command, "depends_on").unwrap())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        needed,
        ["mysql"],
        "the command role needs neither Redis nor MongoDB"
    );
}

#[test]
fn the_image_is_built_in_stages_and_does_not_run_as_root() {
    let instructions: Vec<_> = DOCKERFILE
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert!(
        instructions
            .iter()
            .filter(|line| line.starts_with("FROM "))
            .count()
            >= 2
    );
    let user = instructions
        .iter()
        .rfind(|line| line.starts_with("USER "))
        .expect("a user");
    assert!(!["USER 0", "USER root"].contains(user), "{user}");
    assert!(
        instructions
            .iter()
            .any(|line| line.starts_with("ENTRYPOINT [\"tidelog\"")),
        "{instructions:?}"
    );
}
