//! The head that a proxy sends before its client's bytes: the PROXY protocol of HAProxy, versions 1 and 2.
//!
//! Source: "The PROXY protocol, Versions 1 & 2" (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>). Only bytes are looked at here; how they come is for
//! whoever calls. No byte is asked for that may belong to the client, so that what follows goes on as if there had been no head.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The bytes of version 2 up to the addresses.
const FIXED: usize = 16;
/// What version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, with its end.
const LINE_MAX: usize = 107;
/// A head of version 2 is at most so long. Addresses take 36 bytes, the rest are words of other proxies (TLVs), which we have no use for: the name that was
/// asked for, the names in a client's certificate. It bounds what a connection holds before it is anybody's.
const HEAD_MAX: usize = 4 << 10;

/// How far a head has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes more belong to the head for certain.
    More(usize),
    /// It is whole.
    Whole(Said),
}

/// What a proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// The connection is a client's, from there.
    Client(SocketAddr),
    /// It is the proxy's own, to see whether we are well, or a client's of which it cannot say more.
    Nobody,
}

/// The bytes are not the beginning of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHead {
    /// They are something else: the proxy does not send a head.
    #[error("what came is no head of the PROXY protocol")]
    Other,
    /// They are of a version, or a command, that there is not.
    #[error("the head is of a version or a kind that there is not")]
    Unknown,
    /// They are longer than a head may be, or shorter than what they say.
    #[error("the head has no length that it may have")]
    Length,
    /// Its addresses cannot be read.
    #[error("the addresses of the head cannot be read")]
    Address,
}

/// Looks at `read`, all that has been read so far: at first nothing, then as many bytes as were asked for.
pub(crate) fn step(read: &[u8]) -> Result<Step, NoHead> {
    if let Some(rest) = read.strip_prefix(SIGNATURE) {
        return version_2(rest);
    }
    if read.starts_with(WORD) {
        return version_1(read);
    }
    // The shortest line of version 1 has fifteen bytes: so many as the signature has belong to the head in either case.
    if SIGNATURE.starts_with(read) {
        Ok(Step::More(SIGNATURE.len() - read.len()))
    } else {
        Err(NoHead::Other)
    }
}

fn version_2(rest: &[u8]) -> Result<Step, NoHead> {
    let Some((&[kind, family, high, low], addresses)) = rest.split_first_chunk() else {
        return Ok(Step::More(FIXED - SIGNATURE.len() - rest.len()));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > HEAD_MAX {
        return Err(NoHead::Length);
    }
    let local = match kind {
        0x20 => true,
        0x21 => false,
        _ => return Err(NoHead::Unknown),
    };
    if addresses.len() < length {
        return Ok(Step::More(length - addresses.len()));
    }
    if local {
        return Ok(Step::Whole(Said::Nobody));
    }
    let client = match family {
        0x11 => {
            let (&[a, b, c, d, _, _, _, _, high, low, _, _], _) =
                addresses.split_first_chunk().ok_or(NoHead::Length)?;
            SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
        }
        0x21 => {
            let (source, rest) = addresses.split_first_chunk::<16>().ok_or(NoHead::Length)?;
            let (_, ports) = rest.split_first_chunk::<16>().ok_or(NoHead::Length)?;
            let (&[high, low, _, _], _) = ports.split_first_chunk().ok_or(NoHead::Length)?;
            SocketAddr::from((Ipv6Addr::from(*source), u16::from_be_bytes([high, low])))
        }
        // Datagrams, sockets of a machine, and what there is not yet: the protocol has a receiver go by the connection itself then.
        _ => return Ok(Step::Whole(Said::Nobody)),
    };
    Ok(Step::Whole(Said::Client(client)))
}

fn version_1(read: &[u8]) -> Result<Step, NoHead> {
    let Some(line) = read.strip_suffix(b"\r\n") else {
        // It is not known where it ends, and so is read byte by byte; after a carriage return its end is due.
        let broken =
            read.iter().rev().skip(1).any(|byte| matches!(byte, b'\r' | b'\n')) || read.ends_with(b"\n");
        return if read.len() >= LINE_MAX || broken { Err(NoHead::Length) } else { Ok(Step::More(1)) };
    };
    let line = std::str::from_utf8(line).map_err(|_text| NoHead::Address)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(NoHead::Address)?;
    if family == "UNKNOWN" {
        return Ok(Step::Whole(Said::Nobody));
    }
    let (Some(source), Some(target), Some(port), Some(to), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(NoHead::Address);
    };
    let read = |text: &str| match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_text| NoHead::Address),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_text| NoHead::Address),
        _ => Err(NoHead::Unknown),
    };
    let (source, _target, port, _to) = (read(source)?, read(target)?, number(port)?, number(to)?);
    Ok(Step::Whole(Said::Client(SocketAddr::new(source, port))))
}

/// A port as version 1 writes it: digits alone, and no nought before others.
fn number(text: &str) -> Result<u16, NoHead> {
    let well = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| well).ok_or(NoHead::Address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A head of version 2 as HAProxy writes it.
    fn written(kind: u8, family: u8, addresses: &[u8], words: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len() + words.len()).unwrap();
        [SIGNATURE.as_slice(), &[kind, family], &length.to_be_bytes(), addresses, words].concat()
    }

    /// The addresses of version 2.
    fn addresses(source: SocketAddr, target: SocketAddr) -> (u8, Vec<u8>) {
        let ports = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
        match (source.ip(), target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                (0x11, [source.octets().as_slice(), &target.octets(), &ports].concat())
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                (0x21, [source.octets().as_slice(), &target.octets(), &ports].concat())
            }
            _ => unreachable!("both are of one family"),
        }
    }

    /// Reads as whoever calls does, asking for no byte that was not asked for; gives what was said and how many bytes it took.
    fn read(bytes: &[u8]) -> Result<Option<(Said, usize)>, NoHead> {
        let mut at = 0;
        loop {
            match step(&bytes[..at])? {
                Step::Whole(said) => return Ok(Some((said, at))),
                Step::More(more) => {
                    assert!(more > 0 && at + more <= HEAD_MAX, "{at} and {more}");
                    at += more;
                    if at > bytes.len() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn client(text: &str) -> Said {
        Said::Client(text.parse().unwrap())
    }

    #[test]
    fn lines_of_version_1_are_read() {
        let said = |line: &str| read(line.as_bytes()).map(|read| read.map(|(said, _)| said));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET", client("192.0.2.1:56324")),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", client("[2001:db8::1]:1")),
            ("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n", Said::Nobody),
            ("PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", Said::Nobody),
        ] {
            assert_eq!(said(line), Ok(Some(expected)), "{line}");
        }
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324\r443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.2 1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 443 \r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 443\r\n",
            "PROXY \r\nGET / HTTP/1.1\r\n",
            "PROXY  192.0.2.1 192.0.2.2 1 443\r\n",
            "PROXY UNKNOWN padded to more than the hundred and seven bytes that a line of the first version may have at the very most\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert!(said(line).is_err(), "{line}");
        }
    }

    #[test]
    fn heads_of_version_2_are_read() {
        let (family, both) = addresses("192.0.2.1:56324".parse().unwrap(), "192.0.2.2:443".parse().unwrap());
        let head = |kind, family| written(kind, family, &both, b"");
        assert_eq!(read(&head(0x21, family)), Ok(Some((client("192.0.2.1:56324"), 28))));
        // A balancer's own, with and without addresses.
        assert_eq!(read(&head(0x20, 0)), Ok(Some((Said::Nobody, 28))));
        assert_eq!(read(&written(0x20, 0, b"", b"")), Ok(Some((Said::Nobody, 16))));
        // A socket of the machine, datagrams, a family that there is not.
        for family in [0x00, 0x12, 0x31, 0x77] {
            assert_eq!(read(&head(0x21, family)), Ok(Some((Said::Nobody, 28))));
        }
        for kind in [0x11, 0x22, 0x2f, 0x00] {
            assert_eq!(read(&head(kind, family)), Err(NoHead::Unknown));
        }
        assert_eq!(read(&written(0x21, 0x21, &both, b"")), Err(NoHead::Length), "too short for its family");
        let long = written(0x21, family, &both, &[0; HEAD_MAX - 28]);
        assert_eq!(read(&long), Ok(Some((client("192.0.2.1:56324"), HEAD_MAX))));
        assert_eq!(read(&written(0x21, family, &both, &[0; HEAD_MAX - 27])), Err(NoHead::Length));
    }

    fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let four = any::<([u8; 4], u16)>().prop_map(|(address, port)| SocketAddr::from((address, port)));
        let six = any::<([u8; 16], u16)>().prop_map(|(address, port)| SocketAddr::from((address, port)));
        prop_oneof![(four.clone(), four), (six.clone(), six)]
    }

    proptest! {
        #[test]
        fn what_a_proxy_writes_is_read_to_its_end_and_no_further(
            (source, target) in pair(), words in prop::collection::vec(any::<u8>(), 0..200), rest in prop::collection::vec(any::<u8>(), 0..50)
        ) {
            let (family, both) = addresses(source, target);
            let head = written(0x21, family, &both, &words);
            let line = match source {
                SocketAddr::V4(_) => "TCP4",
                SocketAddr::V6(_) => "TCP6",
            };
            let line = format!("PROXY {line} {} {} {} {}\r\n", source.ip(), target.ip(), source.port(), target.port());
            for head in [head, line.into_bytes()] {
                let bytes = [head.as_slice(), &rest].concat();
                prop_assert_eq!(read(&bytes), Ok(Some((Said::Client(source), head.len()))));
                for end in 0..head.len() {
                    prop_assert_eq!(read(&bytes[..end]), Ok(None));
                }
            }
        }

        #[test]
        fn nothing_that_comes_breaks_it(
            start in prop_oneof![Just(&b""[..]), Just(&SIGNATURE[..]), Just(&WORD[..])],
            rest in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Some((_, taken))) = read(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
