//! Any text: an error, or a pattern that reads back as itself.
#![no_main]

use hwsim::pattern::SparsityPattern;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(pattern) = text.parse::<SparsityPattern>() {
        assert_eq!(pattern.to_string().parse::<SparsityPattern>().expect("its own spelling"), pattern);
    }
});
