//! Export of traces and logs.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::infra::net;

use super::source::{ConfigError, Loaded};

/// Settings of the export by OTLP.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// The collector's URL; `/v1/traces` and `/v1/logs` are added to it.
    pub endpoint: String,
    /// What is sent with each request: the credentials of a hosted service. Their values are marked as sensitive.
    pub headers: HeaderMap,
    /// The share of traces that is recorded where no caller has decided, 0 to 1.
    pub sample: f64,
}

impl OtlpConfig {
    /// `None` where nothing is exported.
    pub(super) fn parse(loaded: &Loaded) -> Result<Option<Self>, ConfigError> {
        let sample: f64 = loaded.parse("otlp_sample", SHARE)?;
        if !(0.0..=1.0).contains(&sample) {
            return Err(loaded.invalid("otlp_sample", format!("expected {SHARE}")));
        }
        let headers = headers(loaded)?;
        let endpoint = match loaded.text("otlp_endpoint").trim() {
            "" if headers.is_empty() => return Ok(None),
            "" => return Err(ConfigError::Together("otlp_headers is set, but otlp_endpoint isn't")),
            text => text.to_owned(),
        };
        net::Endpoint::check(&endpoint).map_err(|error| loaded.invalid("otlp_endpoint", error.to_string()))?;
        Ok(Some(Self { endpoint, headers, sample }))
    }
}

const SHARE: &str = "a number from 0 (none) to 1 (all)";

/// `name=value,…`, values percent-encoded where they hold a comma, as `OTEL_EXPORTER_OTLP_HEADERS` is written.
fn headers(loaded: &Loaded) -> Result<HeaderMap, ConfigError> {
    let wrong = || loaded.invalid("otlp_headers", "expected name=value, several separated by commas");
    let mut headers = HeaderMap::new();
    for pair in loaded.text("otlp_headers").split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| wrong())?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let mut value: HeaderValue = value.parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(settings: &[(&str, &str)]) -> Result<Option<OtlpConfig>, String> {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = Loaded::load(None, settings, []).unwrap();
        Config::parse(&loaded).map(|config| config.otlp).map_err(|error| error.to_string())
    }

    const ENDPOINT: (&str, &str) = ("KEYWARD_OTLP_ENDPOINT", "http://collector:4318");

    #[test]
    fn one_setting_is_enough() {
        assert!(parse(&[]).unwrap().is_none());
        let config = parse(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!((config.endpoint.as_str(), config.headers.len()), ("http://collector:4318", 0));
        assert!(config.sample > 0.0 && config.sample < 1.0);
        for endpoint in ["http://127.0.0.1:4318/", "https://otlp.example.com/otlp", "http://[::1]:4318"] {
            assert!(parse(&[("KEYWARD_OTLP_ENDPOINT", endpoint)]).unwrap().is_some(), "{endpoint}");
        }
    }

    #[test]
    fn headers_are_read_and_never_shown() {
        let config = parse(&[ENDPOINT, ("KEYWARD_OTLP_HEADERS", "authorization=Bearer%20a%2Cb, x-scope = one,")])
            .unwrap()
            .unwrap();
        assert_eq!(
            (&config.headers["authorization"], &config.headers["x-scope"]),
            (&"Bearer a,b".parse().unwrap(), &"one".parse().unwrap())
        );
        assert!(!format!("{config:?}").contains("a,b"));
        for wrong in ["hunter2", "a b=hunter2", "=hunter2", "a=hunter2%0A", "a=hunter2%FF"] {
            let error = parse(&[ENDPOINT, ("KEYWARD_OTLP_HEADERS", wrong)]).unwrap_err();
            assert!(error.contains("otlp_headers") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for endpoint in [
            "collector:4318",
            "grpc://collector:4317",
            "http://u:p@collector",
            "http://collector:0",
            "http://c/?a=b",
            "x",
        ] {
            assert!(parse(&[("KEYWARD_OTLP_ENDPOINT", endpoint)]).unwrap_err().contains("otlp_endpoint"), "{endpoint}");
        }
        for sample in ["-0.1", "1.1", "NaN", "all", "5%"] {
            let error = parse(&[ENDPOINT, ("KEYWARD_OTLP_SAMPLE", sample)]).unwrap_err();
            assert!(error.contains("otlp_sample"), "{error}");
        }
        assert!(parse(&[("KEYWARD_OTLP_HEADERS", "a=b")]).unwrap_err().contains("otlp_endpoint isn't"));
    }
}
