//! What there is, in the words of OpenAPI, and a page to try it on.

use super::Office;
use super::bans::{Direction, SortBy};
use super::refusal::{Refused, Refusing};
use super::schema::{Address, AddressOrNetwork, Author, BanDuration, BansCursor, EntriesCursor, Reason};
use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use std::sync::{Arc, LazyLock};
use utoipa::Modify;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, SecurityRequirement};
use utoipa_swagger_ui::{Config, Url};

/// Swagger UI puts styles into its page. Scripts come from here alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "mailfail2ban",
        description = "Bans, lists and the state of a running mailfail2ban. A change is enforced by every shard before \
                       it is answered.",
        license(name = "MIT")
    ),
    tags(
        (name = "bans", description = "Who is banned, and why."),
        (name = "lists", description = "Who is never denied, and who always is."),
        (name = "server", description = "How the server is doing, and who changed what."),
    ),
    components(schemas(
        Refusing, SortBy, Direction, Address, AddressOrNetwork, BanDuration, Reason, Author, BansCursor, EntriesCursor
    )),
    modifiers(&Schemes)
)]
struct Head;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (name, scheme) in [("basic", HttpAuthScheme::Basic), ("token", HttpAuthScheme::Bearer)] {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
        // Either, or none where the settings name no users and tokens.
        let scopes: [&str; 0] = [];
        openapi.security = Some(vec![
            SecurityRequirement::default(),
            SecurityRequirement::new("basic", scopes),
            SecurityRequirement::new("token", scopes),
        ]);
    }
}

/// The document without its paths.
pub(super) fn head() -> OpenApi {
    Head::openapi()
}

/// The document, as `/api/openapi.json` gives it and the repository keeps it.
fn openapi() -> String {
    let document = super::routes().split_for_parts().1;
    let mut text = document.to_pretty_json().expect("what was made of this program's types is JSON");
    text.push('\n');
    text
}

static DOCUMENT: LazyLock<String> = LazyLock::new(openapi);

static UI: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::new([Url::new("mailfail2ban", "../openapi.json")])));

pub(super) fn router() -> Router<Office> {
    Router::new()
        .route("/api/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())))
        .route("/api/docs", get(async || Redirect::permanent("docs/")))
        .route("/api/docs/", get(async || file("index.html")))
        .route("/api/docs/{*file}", get(async |Path(name): Path<String>| file(&name)))
}

/// A file of Swagger UI.
fn file(name: &str) -> Response {
    match utoipa_swagger_ui::serve(name, Arc::clone(&UI)) {
        Ok(Some(file)) => {
            let headers =
                [(header::CONTENT_TYPE, file.content_type.as_str()), (header::CONTENT_SECURITY_POLICY, POLICY)];
            (headers, file.bytes.into_owned()).into_response()
        }
        Ok(None) => Refused::new(StatusCode::NOT_FOUND, "there is no such file").into_response(),
        Err(why) => Refused::new(StatusCode::NOT_FOUND, why.to_string()).into_response(),
    }
}
