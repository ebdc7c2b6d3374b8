#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| partysync_tests::decoders::livestore(data));
