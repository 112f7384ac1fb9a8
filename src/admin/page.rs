//! The web page: files of this folder that are part of the binary. They hold no data, so whoever may connect may have them.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, type and text of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/index.html")),
    ("/icon.svg", SVG, include_str!("page/icon.svg")),
    ("/page/style.css", CSS, include_str!("page/style.css")),
    ("/page/main.js", JS, include_str!("page/main.js")),
    ("/page/dom.js", JS, include_str!("page/dom.js")),
    ("/page/words.js", JS, include_str!("page/words.js")),
    ("/page/relay.js", JS, include_str!("page/relay.js")),
    ("/page/state.js", JS, include_str!("page/state.js")),
    ("/page/accounts.js", JS, include_str!("page/accounts.js")),
    ("/page/chart.js", JS, include_str!("page/chart.js")),
    ("/page/month.js", JS, include_str!("page/month.js")),
    ("/page/mail.js", JS, include_str!("page/mail.js")),
    ("/page/dialogs.js", JS, include_str!("page/dialogs.js")),
];

pub(super) fn routes() -> Router {
    FILES.iter().fold(Router::new(), |router, (path, of_type, text)| {
        router.route(path, get(move || async move { ([(CONTENT_TYPE, *of_type)], *text) }))
    })
}

/// Whether a path is one of the page's files.
pub(super) fn is_part(path: &str) -> bool {
    FILES.iter().any(|(part, ..)| *part == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_its_own_files_and_nothing_else() {
        let all: String = FILES.iter().map(|(.., text)| *text).collect();
        for quoted in all.split(['"', '\'']).filter(|text| text.starts_with("/page/") || *text == "/icon.svg") {
            assert!(is_part(quoted), "{quoted} is no file of the page");
        }
        for (path, ..) in FILES.iter().filter(|(path, ..)| *path != "/") {
            let name = path.rsplit('/').next().unwrap_or_default();
            assert!(all.contains(&format!("/{name}\"")), "nothing asks for {path}");
        }
        for foreign in ["http://", "https://", "eval(", "innerHTML", "document.write", " style=\"", " onclick=\""] {
            let found = FILES.iter().find(|(_, _, text)| text.replace("http://www.w3.org/", "").contains(foreign));
            assert!(found.is_none(), "{foreign} in {:?}", found.map(|(path, ..)| path));
        }
    }
}
