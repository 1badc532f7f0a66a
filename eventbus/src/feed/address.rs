//! Where a feed is.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// Where a program serves its feed: `http://blog.example:3000/events`.
#[derive(Clone, PartialEq, Eq)]
pub struct FeedUrl(Url);

/// A URL that cannot be that of a feed. It is not repeated: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the feed's URL cannot be used: {reason}")]
pub struct InvalidFeedUrl {
    reason: String,
}

impl FromStr for FeedUrl {
    type Err = InvalidFeedUrl;

    fn from_str(text: &str) -> Result<Self, InvalidFeedUrl> {
        let invalid = |reason: &str| InvalidFeedUrl {
            reason: reason.to_owned(),
        };
        let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("it begins with http:// or https://"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it ends with its path, such as /events"));
        }
        Ok(Self(url))
    }
}

impl FeedUrl {
    /// The feed's `path`, with these parameters.
    #[cfg(feature = "feed-client")]
    pub(super) fn at(&self, path: &[&str], parameters: &[(&str, String)]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        url
    }
}

impl FeedUrl {
    /// Whether what is said to it can be read on the way: it is beyond this machine, and without TLS.
    #[cfg(feature = "feed-client")]
    pub(super) fn is_in_the_clear(&self) -> bool {
        let is_here = match self.0.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        self.0.scheme() == "http" && !is_here
    }
}

impl fmt::Display for FeedUrl {
    /// Without what may be secret in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        if url.password().is_some() {
            // A URL with a host takes a password.
            let _ = url.set_password(Some("***"));
        }
        url.fmt(f)
    }
}

impl fmt::Debug for FeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeedUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "feed-client")]
    #[test]
    fn a_feed_is_read_at_its_path_whether_it_ends_with_a_slash_or_not() {
        for text in ["http://h:1/write/events", "http://h:1/write/events/"] {
            let url: FeedUrl = text.parse().unwrap();
            let heads = Url::parse("http://h:1/write/events/heads").unwrap();
            assert_eq!(url.at(&["heads"], &[]), heads);
            let page = Url::parse("http://h:1/write/events?partition=3").unwrap();
            assert_eq!(url.at(&[], &[("partition", "3".to_owned())]), page);
        }
    }

    #[cfg(feature = "feed-client")]
    #[test]
    fn what_is_said_beyond_this_machine_without_tls_can_be_read() {
        for (text, is_in_the_clear) in [
            ("http://shop.example/events", true),
            ("http://10.0.0.1/events", true),
            ("https://shop.example/events", false),
            ("http://localhost:3000/events", false),
            ("http://127.0.0.2/events", false),
            ("http://[::1]/events", false),
        ] {
            let url: FeedUrl = text.parse().unwrap();
            assert_eq!(url.is_in_the_clear(), is_in_the_clear, "{text}");
        }
    }

    #[test]
    fn what_is_no_feeds_url_is_refused_and_not_repeated() {
        for text in [
            "hunter2",
            "ftp://u:hunter2@h/events",
            "http://u:hunter2@h/events?partition=0",
            "http://u:hunter2@h:port/events",
        ] {
            let error = text.parse::<FeedUrl>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let url: FeedUrl = "http://u:hunter2@h/events".parse().unwrap();
        assert_eq!(url.to_string(), "http://u:***@h/events");
    }
}
