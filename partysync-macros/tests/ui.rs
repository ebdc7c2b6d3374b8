//! Every misuse of a derive is an error on the right token that says what to write instead.

#[test]
fn misuse_is_a_compile_error_that_helps() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    cases.pass("tests/pass/*.rs");
}
