//! Reads the few settings of an `xl` configuration that the bed needs to know.
//!
//! `xl` itself reads the whole file. The bed reads only the settings that name files of this
//! machine, the type, and the devices that its dom0 cannot serve.

use regex_lite::Regex;

/// The text of an `xl` configuration.
#[derive(Clone, Debug)]
pub struct XlConfig {
    text: String,
}

/// Lists of devices for which the dom0 of the bed has no backend.
const DEVICES: [&str; 6] = ["disk", "vif", "vfb", "pci", "usbdev", "vtpm"];

impl XlConfig {
    /// Takes the text of a file.
    pub fn new(text: String) -> Self {
        Self { text }
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the string value of a setting, the last one if it is set more than once.
    pub fn string(&self, name: &str) -> Option<String> {
        let setting = format!(r#"(?m)^\s*{name}\s*=\s*(?:"([^"\n]*)"|'([^'\n]*)')"#);
        let setting = Regex::new(&setting).expect("a name of letters");
        let found = setting.captures_iter(&self.text).last()?;
        found.get(1).or(found.get(2)).map(|value| value.as_str().to_owned())
    }

    /// Returns the device lists that are not empty.
    pub fn devices(&self) -> Vec<&'static str> {
        let has = |name: &&str| {
            let setting = format!(r"(?m)^\s*{name}\s*=\s*\[\s*[^\]\s]");
            Regex::new(&setting).expect("a name of letters").is_match(&self.text)
        };
        DEVICES.into_iter().filter(has).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_as_xl_reads_them() {
        let text = "# kernel = \"no\"\nkernel=\"a\"\n  kernel = 'b.bin' # the last one\ntype = \"pvh\"\n\
                    disk = [ ]\nvif = [\n  'bridge=xenbr0' ]\nmemory = 64\n";
        let config = XlConfig::new(text.to_owned());
        assert_eq!(config.string("kernel").unwrap(), "b.bin");
        assert_eq!(config.string("type").unwrap(), "pvh");
        assert_eq!(config.string("ramdisk"), None);
        assert_eq!(config.string("memory"), None, "a number is not a string");
        assert_eq!(config.devices(), ["vif"]);
    }
}
