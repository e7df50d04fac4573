//! The scope that the table of calls names is the one that a handler asks for.

use super::*;
use crate::api::calls;

#[tokio::test]
async fn a_call_takes_keys_with_the_scope_that_the_table_names_and_no_others() {
    let fixture = fixture().await;
    let keys = [(PUBLISHER, Scope::Publish), (READER, Scope::Read), (MANAGER, Scope::Manage)];
    for call in calls::all() {
        let path = call.path.replace("{id}", "1-0").replace(['{', '}'], "");
        for (key, scope) in keys {
            let request = Request::builder()
                .method(call.method)
                .uri(&path)
                .header(header::AUTHORIZATION, format!("Bearer {key}"))
                .body(Body::empty())
                .unwrap();
            let answer = send(&fixture.router, request).await;
            let takes = call.scope.is_none_or(|needed| needed == scope);
            assert_eq!(answer.status != 403, takes, "{} {path} with {scope:?}: {}", call.method, answer.status);
        }
    }
}
