//! Client tokens: any text, and any header and claims that were signed with the right secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use homing_protocol::name::Name;
use homing_protocol::topic::TopicPatterns;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::cursor::Cursor;
use crate::auth::jwt::{Claims, LEEWAY_S, TOKEN_BYTES_MAX, TokenError, TokenVerifier};
use crate::config::{JwtAlgorithm, JwtConfig, JwtSecret, Secret};

const NOW_S: u64 = 1_700_000_000;
const OURS: &[u8] = b"our-secret-of-at-least-32-bytes-0001";
const FOREIGN: &[u8] = b"a-foreign-secret-of-at-least-32-byte";

/// A header and claims, one line each, signed; the rest of the input says what is done to the token afterwards.
pub fn tokens(data: &[u8]) {
    let mut cursor = Cursor::new(data);
    let choice = cursor.byte();
    if choice == 0 {
        let text = String::from_utf8_lossy(cursor.rest());
        let outcome = verifier(OURS, None).verify(&text, NOW_S);
        assert_eq!(outcome == Err(TokenError::TooLong), text.len() > TOKEN_BYTES_MAX);
        return assert!(outcome.is_err(), "{text:?} was signed by nobody");
    }
    let audience = (choice & 1 > 0).then_some("us");
    let (header, claims) = (cursor.until(b'\n'), cursor.until(b'\n'));
    let message = format!("{}.{}", BASE64_URL.encode(header), BASE64_URL.encode(claims));
    let key = EncodingKey::from_secret(OURS);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("HMAC takes any message");
    let token = format!("{message}.{signature}");
    let outcome = verifier(OURS, audience).verify(&token, NOW_S);
    let expected = expected(header, claims, audience);
    match &outcome {
        Ok(accepted) => {
            assert!(is_json(header) && is_json(claims), "what was accepted is JSON");
            // `Value` refuses more than a parser that passes over members, such as numbers beyond all numbers.
            let is_value = |bytes| serde_json::from_slice::<Value>(bytes).is_ok();
            assert!(Some(accepted) == expected.as_ref() || !is_value(header) || !is_value(claims), "{accepted:?}");
            assert_eq!(verifier(FOREIGN, audience).verify(&token, NOW_S), Err(TokenError::Signature));
            // Times that milliseconds cannot say never come.
            if accepted.expires_at_ms < u64::MAX {
                let ends_s = accepted.expires_at_ms / 1_000;
                assert_eq!(verifier(OURS, audience).verify(&token, ends_s), Err(TokenError::Expired));
            }
            check_tampered(&token, audience, &mut cursor);
        }
        // Members that stand twice, and other things that `Value` does not show, may be refused.
        Err(TokenError::TooLong) => assert!(token.len() > TOKEN_BYTES_MAX),
        Err(error) => {
            assert_ne!(*error, TokenError::Signature, "a signed token");
            let is_plain =
                |bytes| serde_json::from_slice::<Value>(bytes).is_ok_and(|value| value.to_string().as_bytes() == bytes);
            assert!(expected.is_none() || !is_plain(header) || !is_plain(claims), "{error:?} for a good token");
        }
    }
}

fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok())
}

fn verifier(secret: &[u8], audience: Option<&str>) -> TokenVerifier {
    let secret = Secret::new(secret, "fuzz").expect("the secret is long enough");
    TokenVerifier::new(JwtConfig {
        algorithm: JwtAlgorithm::Hs256,
        secrets: vec![JwtSecret { kid: None, secret }],
        audience: audience.map(str::to_owned),
    })
}

/// What PROTOCOL.md says of these claims, read another way.
fn expected(header: &[u8], claims: &[u8], audience: Option<&str>) -> Option<Claims> {
    let header: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(claims).ok()?;
    let member =
        |members: &'_ Map<String, Value>, name: &str| members.get(name).filter(|value| !value.is_null()).cloned();
    if header.get("alg") != Some(&Value::from("HS256")) || member(&header, "crit").is_some() {
        return None;
    }
    if member(&header, "kid").is_some_and(|kid| !kid.is_string()) {
        return None;
    }
    // Some(None): not there.
    let seconds = |name: &str| match member(&claims, name) {
        None => Some(None),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => Some(Some(whole)),
            (None, Some(seconds)) if seconds >= 0.0 => Some(Some(seconds as u64)),
            _ => None,
        },
        Some(_) => None,
    };
    let name = |name: &str| match member(&claims, name) {
        None => Some(None),
        Some(Value::String(text)) => Some(Some(Name::parse(&text).ok()?)),
        Some(_) => None,
    };
    let audiences: Vec<String> = match member(&claims, "aud") {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        Some(_) => return None,
    };
    let sessions = match claims.get("sessions") {
        None => None,
        Some(sessions) => Some(u32::try_from(sessions.as_u64()?).ok()?),
    };
    let (expires, not_before, issued) = (seconds("exp")??, seconds("nbf")?, seconds("iat")?);
    let is_now = [not_before, issued].iter().all(|time| time.is_none_or(|time| time <= NOW_S + LEEWAY_S));
    let is_for_us = audience.is_none_or(|wanted| audiences.iter().any(|audience| audience == wanted));
    (expires > NOW_S && is_now && is_for_us).then_some(())?;
    let topics = match member(&claims, "topics") {
        None => Vec::new(),
        Some(Value::Array(many)) => {
            many.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()?
        }
        Some(_) => return None,
    };
    let topics = TopicPatterns::parse(&topics).ok()?;
    let expires_at_ms = expires.saturating_mul(1_000);
    let (user, device) = (name("sub")??, name("device")?);
    Some(Claims { user, device, expires_at_ms, topics, issued_at_s: issued, sessions })
}

/// A token of which one character is another is no token of ours.
fn check_tampered(token: &str, audience: Option<&str>, cursor: &mut Cursor<'_>) {
    let position = cursor.number() as usize % token.len();
    let replacement = cursor.one_of(b"ABCDwxyz0189-_.=");
    let mut tampered = token.as_bytes().to_vec();
    if std::mem::replace(&mut tampered[position], replacement) == replacement {
        return;
    }
    let tampered = String::from_utf8(tampered).expect("ASCII stays ASCII");
    assert!(verifier(OURS, audience).verify(&tampered, NOW_S).is_err(), "{tampered:?} passes for {token:?}");
}
