//! Connections that are driven by hand, and TLS, against a real server.

use std::process::Command;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::store::test_server::TestServer;

/// Arguments of openssl that make an authority and a certificate for 127.0.0.1 that it signed.
const STEPS: [&str; 3] = [
    "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=authority",
    "req -newkey rsa:2048 -nodes -keyout tls.key -out tls.csr -subj /CN=redis",
    "x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san.txt -out tls.pem",
];

fn certificates(folder: &std::path::Path) {
    std::fs::write(folder.join("san.txt"), "subjectAltName=IP:127.0.0.1").unwrap();
    for step in STEPS {
        let made = Command::new("openssl").args(step.split(' ')).current_dir(folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

#[tokio::test]
async fn a_server_with_tls_is_reached_if_its_certificate_is_good() {
    // Free a moment ago; a test that gets it instead of us makes this one fail, not pass.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let options = ["--tls-port", &port, "--tls-cert-file", "tls.pem", "--tls-key-file", "tls.key"];
    let options = [options.as_slice(), &["--tls-ca-cert-file", "ca.pem", "--tls-auth-clients", "no"]].concat();
    let server = TestServer::start_with(&options, certificates);
    server.connect().await;
    let client = Client::open(format!("rediss://127.0.0.1:{port}/2")).unwrap();
    let pem = std::fs::read(server.file("ca.pem")).unwrap();

    let mut wire = Dialer::new(&client, Some(&pem)).unwrap().dial().await.unwrap();
    let long = "x".repeat(1_000_000);
    let echoed: String = redis::cmd("ECHO").arg(&long).query_async(&mut wire).await.unwrap();
    assert_eq!(echoed, long);

    let stranger = Dialer::new(&client, None).unwrap().dial().await.err();
    assert!(matches!(stranger, Some(StoreError::Unavailable(_))), "{stranger:?}");
    let nonsense = Dialer::new(&client, Some(b"no certificate")).err();
    assert!(matches!(nonsense, Some(StoreError::Unavailable(_))), "{nonsense:?}");
}

/// The reply of what was given up would be taken for that of the next command.
#[tokio::test]
async fn a_connection_is_of_no_use_after_an_exchange_that_was_given_up() {
    let server = TestServer::start(&[]);
    server.connect().await;
    let mut wire = server.store().await.dial().await.unwrap();
    wire.commands().command(3).arg("BLPOP").arg("nothing").number(0);
    assert!(timeout(Duration::from_millis(50), wire.exchange(1)).await.is_err());
    wire.commands().command(1).arg("PING");
    let refused = timeout(Duration::from_secs(5), wire.exchange(1)).await.expect("it is refused at once");
    assert!(refused.is_err());
}
