//! Any text: an error or a profile, and a profile that was read can be written and read again.
#![no_main]

use hwsim::profile::Profile;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(profile) = Profile::from_toml(text, "fuzz.toml") {
        Profile::from_toml(&profile.to_toml(), "again.toml").expect("its own text");
    }
});
