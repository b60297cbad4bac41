//! Files of `node.api.tcp`, right and wrong.

use super::*;
use crate::authority::{Authority, Files, expose};

fn api(files: &Files, client_ca_file: &Path) -> TcpApi {
    TcpApi {
        address: "127.0.0.1:8443".parse().unwrap(),
        certificate_file: files.certificate.clone(),
        key_file: files.key.clone(),
        client_ca_file: client_ca_file.to_owned(),
    }
}

fn refused(api: &TcpApi) -> String {
    load(api).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_told_by_key_and_file() {
    let authority = Authority::new();
    let right = authority.files("node", &["127.0.0.1"], 2001..2999);
    let ca = authority.file();
    let terms = load(&api(&right, &ca)).unwrap();
    assert_eq!(format!("{terms:?}"), "Terms(..)", "no key in any log");

    for (year, word) in [(2001, "expired"), (2998, "not valid yet")] {
        let files = authority.files("late", &["127.0.0.1"], year..year + 1);
        let said = refused(&api(&files, &ca));
        let file = files.certificate.display();
        assert!(
            said.starts_with("node.api.tcp.certificate_file: "),
            "{said}"
        );
        assert!(said.contains(&format!("`{file}` is {word}")), "{said}");
    }

    let other = authority.files("other", &["127.0.0.1"], 2001..2999);
    let mixed = Files {
        certificate: right.certificate.clone(),
        key: other.key,
    };
    let said = refused(&api(&mixed, &ca));
    assert!(said.starts_with("node.api.tcp.key_file: "), "{said}");

    let missing = Path::new("/nonexistent/ca.pem");
    let said = refused(&api(&right, missing));
    assert!(
        said.starts_with("node.api.tcp.client_ca_file: `/nonexistent/ca.pem` cannot be read"),
        "{said}"
    );
    // A key is no certificate, and an authority that is nobody lets nobody in.
    let said = refused(&api(&right, &right.key));
    assert!(said.contains("holds no certificate in PEM"), "{said}");

    expose(&right.key);
    let said = refused(&api(&right, &ca));
    assert!(
        said.contains("may be read by everybody (mode 644)"),
        "{said}"
    );
}
