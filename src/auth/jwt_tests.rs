//! Tokens that must be accepted, and many more that must not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{JwtAlgorithm, Secret};

const NOW: u64 = 1_700_000_000;
const FIRST: &[u8] = b"first-secret-of-at-least-32-bytes-01";
const SECOND: &[u8] = b"second-secret-of-at-least-32-bytes-2";

fn secret(kid: Option<&str>, bytes: &[u8]) -> JwtSecret {
    JwtSecret { kid: kid.map(str::to_owned), secret: Secret::new(bytes, "test").unwrap() }
}

fn verifier(secrets: Vec<JwtSecret>) -> TokenVerifier {
    TokenVerifier::new(JwtConfig { algorithm: JwtAlgorithm::Hs256, secrets, audience: None })
}

fn signed_as(header: &Value, claims: &(impl AsRef<[u8]> + ?Sized), key: &[u8]) -> String {
    let message = format!("{}.{}", BASE64_URL.encode(header.to_string()), BASE64_URL.encode(claims));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(key), Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn signed(claims: &Value) -> String {
    signed_as(&json!({"alg": "HS256"}), &claims.to_string(), FIRST)
}

fn outcome(claims: &Value) -> Result<Claims, TokenError> {
    verifier(vec![secret(None, FIRST)]).verify(&signed(claims), NOW)
}

fn outcome_of_header(header: &Value) -> Result<Claims, TokenError> {
    let token = signed_as(header, &json!({"sub": "alice", "exp": NOW + 60}).to_string(), FIRST);
    verifier(vec![secret(None, FIRST)]).verify(&token, NOW)
}

#[test]
fn a_token_that_was_signed_here_is_accepted() {
    let (user, device) = (Name::parse("alice").unwrap(), Name::parse("web-1").unwrap());
    let grant = Grant {
        user: &user,
        device: Some(&device),
        topics: &[],
        audience: None,
        issued_at_s: NOW,
        expires_at_s: NOW + 60,
    };
    let first = secret(Some("k1"), FIRST);
    let token = grant.sign(&first).unwrap();
    let claims = verifier(vec![first]).verify(&token, NOW).unwrap();
    assert_eq!(
        claims,
        Claims {
            user,
            device: Some(device),
            expires_at_ms: (NOW + 60) * 1_000,
            issued_at_s: Some(NOW),
            sessions: None,
            topics: TopicPatterns::default(),
        }
    );
}

#[test]
fn claims_that_are_not_utf_8_are_refused() {
    // In a member that nobody reads, where a parser of bytes does not look.
    let claims = b"{\"sub\":\"alice\",\"exp\":1700000060,\"other\":\"\xff\"}";
    let token = signed_as(&json!({"alg": "HS256"}), claims, FIRST);
    let outcome = verifier(vec![secret(None, FIRST)]).verify(&token, NOW);
    assert!(matches!(outcome, Err(TokenError::Claims(_))), "{outcome:?}");
}

#[test]
fn a_forged_token_is_refused() {
    let claims = json!({"sub": "alice", "exp": NOW + 60});
    let forged = signed_as(&json!({"alg": "HS256"}), &claims.to_string(), SECOND);
    let verifier = verifier(vec![secret(None, FIRST)]);
    assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::Signature));

    let genuine = signed(&claims);
    let (head, signature) = genuine.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let other = BASE64_URL.encode(json!({"sub": "root", "exp": NOW + 60}).to_string());
    assert_eq!(verifier.verify(&format!("{header}.{other}.{signature}"), NOW), Err(TokenError::Signature));
    assert_eq!(verifier.verify(&format!("{head}."), NOW), Err(TokenError::Signature));
    assert_eq!(self::verifier(vec![]).verify(&genuine, NOW), Err(TokenError::Signature));
}

#[test]
fn the_token_has_no_say_in_its_algorithm() {
    for algorithm in ["none", "None", "", "RS256", "HS512", "hs256", "ES256"] {
        assert_eq!(outcome_of_header(&json!({"alg": algorithm})), Err(TokenError::Algorithm), "{algorithm}");
    }
    assert_eq!(outcome_of_header(&json!({"alg": "HS256", "crit": ["b64"]})), Err(TokenError::Algorithm));
    for header in
        [json!({}), json!({"alg": null}), json!({"alg": ["HS256"]}), json!(["HS256", null, null]), json!("HS256")]
    {
        assert_eq!(outcome_of_header(&header), Err(TokenError::Malformed), "{header}");
    }
    assert!(outcome_of_header(&json!({"alg": "HS256", "typ": "JWT", "x": 1})).is_ok());
}

#[test]
fn an_expired_token_is_told_apart_from_an_invalid_one() {
    assert!(outcome(&json!({"sub": "alice", "exp": NOW + 1})).is_ok());
    for exp in [json!(NOW), json!(NOW - 1), json!(0), json!(1.5)] {
        let error = outcome(&json!({"sub": "alice", "exp": exp})).unwrap_err();
        assert_eq!((error.code(), error), (ErrorCode::TokenExpired, TokenError::Expired));
    }
    let forged = signed_as(&json!({"alg": "HS256"}), &json!({"sub": "alice", "exp": 1}).to_string(), SECOND);
    let error = verifier(vec![secret(None, FIRST)]).verify(&forged, NOW).unwrap_err();
    assert_eq!((error.code(), error), (ErrorCode::Unauthorized, TokenError::Signature));
}

#[test]
fn a_token_allows_no_more_sessions_than_a_user_can_have_devices() {
    let verifier = verifier(vec![secret(None, FIRST)]).with_devices_max(20);
    let outcome =
        |sessions: u64| verifier.verify(&signed(&json!({"sub": "alice", "exp": NOW + 60, "sessions": sessions})), NOW);
    for sessions in [0, 1, 20] {
        assert_eq!(outcome(sessions.into()).unwrap().sessions, Some(sessions));
    }
    let text = outcome(21).unwrap_err().to_string();
    assert_eq!(text, "the token's claims are not usable: 'sessions' is 21; it must be 0 to 20 (devices_max)");
}

#[test]
fn claims_of_an_odd_type_are_refused_and_not_skipped() {
    let later = NOW + 60;
    for claims in [
        json!({"sub": "alice"}),
        json!({"sub": "alice", "exp": null}),
        json!({"sub": "alice", "exp": later.to_string()}),
        json!({"sub": "alice", "exp": -1}),
        json!({"sub": "alice", "exp": [later]}),
        json!({"sub": "alice", "exp": true}),
        json!({"sub": "alice", "exp": later, "nbf": "0"}),
        json!({"sub": "alice", "exp": later, "iat": {}}),
        json!({"sub": "alice", "exp": later, "device": 7}),
        json!({"sub": "alice", "exp": later, "aud": 7}),
        json!({"sub": "alice", "exp": later, "sessions": "1"}),
        json!({"sub": "alice", "exp": later, "sessions": 1.0}),
        json!({"sub": "alice", "exp": later, "sessions": -1}),
        json!({"sub": "alice", "exp": later, "sessions": null}),
        json!({"sub": 7, "exp": later}),
        json!({"exp": later}),
        json!(["alice", later, null, null, null, null]),
        json!(null),
    ] {
        let error = outcome(&claims).unwrap_err();
        assert!(matches!(error, TokenError::Claims(_)), "{claims}: {error}");
    }
    let twice = signed_as(&json!({"alg": "HS256"}), r#"{"sub":"a","sub":"b","exp":1800000000}"#, FIRST);
    assert!(matches!(verifier(vec![secret(None, FIRST)]).verify(&twice, NOW), Err(TokenError::Claims(_))));
}

#[test]
fn times_may_be_large_or_have_a_fraction() {
    assert_eq!(outcome(&json!({"sub": "a", "exp": NOW as f64 + 9.75})).unwrap().expires_at_ms, (NOW + 9) * 1_000);
    assert_eq!(outcome(&json!({"sub": "a", "exp": u64::MAX})).unwrap().expires_at_ms, u64::MAX);
    assert_eq!(outcome(&json!({"sub": "a", "exp": 1e300})).unwrap().expires_at_ms, u64::MAX);
}

#[test]
fn a_user_or_device_that_is_no_name_is_refused() {
    for sub in ["", ".", "..", "a b", "a/b", "a{b}", "größe", &"a".repeat(256)] {
        let error = outcome(&json!({"sub": sub, "exp": NOW + 60})).unwrap_err();
        assert!(matches!(error, TokenError::Name("sub", _)), "{sub:?}");
    }
    let error = outcome(&json!({"sub": "alice", "device": "", "exp": NOW + 60})).unwrap_err();
    assert_eq!(error, TokenError::Name("device", NameError::Empty));
}

#[test]
fn the_leeway_covers_clocks_that_differ_by_five_seconds_and_no_more() {
    for claim in ["nbf", "iat"] {
        assert!(outcome(&json!({"sub": "alice", "exp": NOW + 60, claim: NOW + LEEWAY_S})).is_ok());
        let error = outcome(&json!({"sub": "alice", "exp": NOW + 60, claim: NOW + LEEWAY_S + 1})).unwrap_err();
        assert_eq!(error, TokenError::NotYet(claim));
    }
}

#[test]
fn the_audience_counts_only_when_one_is_configured() {
    let strict = TokenVerifier::new(JwtConfig {
        algorithm: JwtAlgorithm::Hs256,
        secrets: vec![secret(None, FIRST)],
        audience: Some("homing".to_owned()),
    });
    for (audience, accepted) in [
        (json!("homing"), true),
        (json!(["other", "homing"]), true),
        (json!("other"), false),
        (json!([]), false),
        (json!(null), false),
    ] {
        let claims = json!({"sub": "alice", "exp": NOW + 60, "aud": audience});
        let expected = if accepted { None } else { Some(TokenError::Audience) };
        assert_eq!(strict.verify(&signed(&claims), NOW).err(), expected, "{audience}");
        assert!(outcome(&claims).is_ok());
    }
}

#[test]
fn several_secrets_are_chosen_by_the_key_id() {
    let both = verifier(vec![secret(Some("k1"), FIRST), secret(Some("k2"), SECOND)]);
    let with_unnamed = verifier(vec![secret(Some("k1"), FIRST), secret(None, SECOND)]);
    let claims = json!({"sub": "alice", "exp": NOW + 60}).to_string();
    let token = |kid: Option<&str>, key| match kid {
        Some(kid) => signed_as(&json!({"alg": "HS256", "kid": kid}), &claims, key),
        None => signed_as(&json!({"alg": "HS256"}), &claims, key),
    };
    assert!(both.verify(&token(Some("k2"), SECOND), NOW).is_ok());
    assert!(both.verify(&token(None, SECOND), NOW).is_ok());
    assert_eq!(both.verify(&token(Some("k1"), SECOND), NOW), Err(TokenError::Signature));
    assert_eq!(both.verify(&token(Some("k3"), SECOND), NOW), Err(TokenError::Signature));
    assert!(with_unnamed.verify(&token(Some("k3"), SECOND), NOW).is_ok());
    assert_eq!(with_unnamed.verify(&token(Some("k3"), FIRST), NOW), Err(TokenError::Signature));
}

#[test]
fn a_token_over_the_limit_is_refused_before_it_is_decoded() {
    assert_eq!(verifier(vec![]).verify(&"a".repeat(TOKEN_BYTES_MAX + 1), NOW), Err(TokenError::TooLong));
}

proptest! {
    #[test]
    fn no_text_is_a_token_by_chance(text in ".{0,200}") {
        prop_assert!(verifier(vec![secret(None, FIRST)]).verify(&text, NOW).is_err());
    }

    #[test]
    fn a_token_with_one_byte_changed_is_refused(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let token = signed(&json!({"sub": "alice", "exp": NOW + 60}));
        let mut bytes = token.clone().into_bytes();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if let Ok(text) = String::from_utf8(bytes) && text != token {
            prop_assert!(verifier(vec![secret(None, FIRST)]).verify(&text, NOW).is_err());
        }
    }
}
