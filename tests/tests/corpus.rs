//! The inputs of the fuzz targets that are kept: seeds, and whatever once broke something.

use partysync_tests::decoders::DECODERS;
use std::path::Path;

#[test]
fn every_input_that_is_kept_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut folders = 0;
    for folder in std::fs::read_dir(&corpus).unwrap() {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        let (_, decode) = DECODERS.iter().find(|(decoder, _)| *decoder == name).expect(&name);
        let inputs: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for input in inputs {
            decode(&std::fs::read(input.unwrap().path()).unwrap());
        }
        folders += 1;
    }
    assert_eq!(folders, DECODERS.len());
}

#[test]
fn each_decoder_has_a_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for (name, _) in DECODERS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let target = fuzz.join("fuzz_targets").join(format!("{name}.rs"));
        let target = std::fs::read_to_string(target).unwrap();
        assert!(target.contains(&format!("decoders::{name}(data)")), "{name}");
    }
}
