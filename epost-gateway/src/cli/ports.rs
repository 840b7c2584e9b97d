//! Which ports a local organisation uses, and whether they are free.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Where a free range is looked for: below the ports that the kernel gives to outgoing connections.
const FREE_RANGES: std::ops::Range<u16> = 12_000..20_000;

/// From one range looked at to the next; as wide as the widest organisation.
const FREE_STEP: u16 = 200;

const _: () = assert!(4 * 5 + 2 * super::local::NODES_MAX <= FREE_STEP);

/// The four ports a user's mail client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailPorts {
    /// Submission, upgraded by STARTTLS.
    pub smtp_starttls: u16,
    /// Submission under TLS from the first byte.
    pub smtp_tls: u16,
    /// IMAP, upgraded by STARTTLS.
    pub imap_starttls: u16,
    /// IMAP under TLS from the first byte.
    pub imap_tls: u16,
}

/// The two ports of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePorts {
    /// QUIC, over UDP.
    pub quic: u16,
    /// The status page.
    pub status: u16,
}

/// All ports of a local organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// By user.
    pub users: Vec<MailPorts>,
    /// By node.
    pub nodes: Vec<NodePorts>,
}

/// Why ports cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Some other program listens there.
    #[error("port {port} ({purpose}) is in use; stop the program that uses it, or choose others with --port-base")]
    InUse {
        /// The port.
        port: u16,
        /// What it is for.
        purpose: &'static str,
    },
    /// A port that only root may listen on.
    #[error("port {port} ({purpose}) may not be used by you; choose others with --port-base")]
    NotAllowed {
        /// The port.
        port: u16,
        /// What it is for.
        purpose: &'static str,
    },
    /// The last of the ports would be beyond 65535.
    #[error("--port-base {base} leaves no room for {wanted} ports; use at most {}", 65536 - *wanted as u32)]
    NoRoom {
        /// The first port asked for.
        base: u16,
        /// How many are needed.
        wanted: u16,
    },
    /// Other programs listen everywhere.
    #[error("no range of {wanted} free ports from {} to {}; choose one with --port-base", FREE_RANGES.start, FREE_RANGES.end)]
    NoneFree {
        /// How many are needed.
        wanted: u16,
    },
}

impl PortPlan {
    /// The ports used when nothing else is said: 2587, 2465, 2143 and 2993 for the first user, 1000 more for each
    /// further one; 4101 and up for QUIC, 4201 and up for status pages.
    pub fn standard(users: u16, nodes: u16) -> Self {
        assert!(users <= 2 && nodes <= 100);
        let user = |n: u16| MailPorts {
            smtp_starttls: 2587 + 1000 * n,
            smtp_tls: 2465 + 1000 * n,
            imap_starttls: 2143 + 1000 * n,
            imap_tls: 2993 + 1000 * n,
        };
        let node = |n: u16| NodePorts { quic: 4101 + n, status: 4201 + n };
        PortPlan { users: (0..users).map(user).collect(), nodes: (0..nodes).map(node).collect() }
    }

    /// All ports from `base` upwards without a gap: four for each user (SMTP with STARTTLS, SMTP with TLS, IMAP with
    /// STARTTLS, IMAP with TLS), then QUIC for each node, then the status page of each node.
    pub fn from_base(base: u16, users: u16, nodes: u16) -> Result<Self, PortError> {
        let wanted = 4 * users + 2 * nodes;
        if u32::from(base) + u32::from(wanted) > 65536 {
            return Err(PortError::NoRoom { base, wanted });
        }
        let user = |n: u16| {
            let first = base + 4 * n;
            MailPorts { smtp_starttls: first, smtp_tls: first + 1, imap_starttls: first + 2, imap_tls: first + 3 }
        };
        let first = base.wrapping_add(4 * users);
        let node = |n: u16| NodePorts { quic: first + n, status: first + nodes + n };
        Ok(PortPlan { users: (0..users).map(user).collect(), nodes: (0..nodes).map(node).collect() })
    }

    /// A first port from which on all are free now, for those who do not care which. `turn` chooses where the search
    /// begins, so that two who search at the same time seldom meet.
    pub fn free_base(users: u16, nodes: u16, turn: u32) -> Result<u16, PortError> {
        let bases: Vec<u16> = FREE_RANGES.step_by(usize::from(FREE_STEP)).collect();
        let first = turn as usize % bases.len();
        let mut in_turn = bases[first..].iter().chain(&bases[..first]);
        let is_free = |base: &&u16| Self::from_base(**base, users, nodes).is_ok_and(|plan| plan.check().is_ok());
        in_turn.find(is_free).copied().ok_or(PortError::NoneFree { wanted: 4 * users + 2 * nodes })
    }

    /// Whether each of them can be listened on now.
    pub fn check(&self) -> Result<(), PortError> {
        for user in &self.users {
            listen(user.smtp_starttls, "SMTP")?;
            listen(user.smtp_tls, "SMTP over TLS")?;
            listen(user.imap_starttls, "IMAP")?;
            listen(user.imap_tls, "IMAP over TLS")?;
        }
        for node in &self.nodes {
            let bound = UdpSocket::bind(local(node.quic)).map(drop);
            verdict(bound, node.quic, "QUIC between nodes, UDP")?;
            listen(node.status, "status page")?;
        }
        Ok(())
    }
}

/// A port on this machine's loopback interface.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn listen(port: u16, purpose: &'static str) -> Result<(), PortError> {
    verdict(TcpListener::bind(local(port)).map(drop), port, purpose)
}

fn verdict(bound: std::io::Result<()>, port: u16, purpose: &'static str) -> Result<(), PortError> {
    bound.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => PortError::NotAllowed { port, purpose },
        _ => PortError::InUse { port, purpose },
    })
}

#[cfg(test)]
mod tests {
    //! Goal: the ports of the README, no port twice, and a taken port is named. Method: by hand; by taking one.
    use super::*;
    use std::collections::BTreeSet;

    fn all(plan: &PortPlan) -> Vec<u16> {
        let users = plan.users.iter().flat_map(|u| [u.smtp_starttls, u.smtp_tls, u.imap_starttls, u.imap_tls]);
        users.chain(plan.nodes.iter().map(|n| n.quic)).chain(plan.nodes.iter().map(|n| n.status)).collect()
    }

    #[test]
    fn the_standard_ports() {
        let plan = PortPlan::standard(2, 5);
        let expected = [2587, 2465, 2143, 2993, 3587, 3465, 3143, 3993, 4101, 4102, 4103, 4104, 4105];
        assert_eq!(all(&plan)[..13], expected);
        let widest = all(&PortPlan::standard(2, 100));
        assert_eq!(widest.iter().collect::<BTreeSet<_>>().len(), widest.len());
    }

    #[test]
    fn from_a_base_upwards_in_order() {
        let plan = PortPlan::from_base(20_000, 2, 5).unwrap();
        assert_eq!(all(&plan), (20_000..20_018).collect::<Vec<_>>());
        assert_eq!(all(&PortPlan::from_base(65_518, 2, 5).unwrap()).last(), Some(&65_535));
        let error = PortPlan::from_base(65_519, 2, 5).unwrap_err();
        assert_eq!(error, PortError::NoRoom { base: 65_519, wanted: 18 });
        assert!(error.to_string().ends_with("use at most 65518"));
    }

    #[test]
    fn a_range_with_a_taken_port_is_passed_over() {
        let base = PortPlan::free_base(4, 16, 7).unwrap();
        let _taken = TcpListener::bind(local(base + 47)).unwrap();
        let other = PortPlan::free_base(4, 16, 7).unwrap();
        assert_ne!(other, base);
        assert!(FREE_RANGES.contains(&other));
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind(local(0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let nodes = vec![NodePorts { quic: 0, status: port }];
        let error = PortPlan { users: Vec::new(), nodes }.check().unwrap_err();
        assert_eq!(error, PortError::InUse { port, purpose: "status page" });
        let udp = UdpSocket::bind(local(0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        let nodes = vec![NodePorts { quic: port, status: 0 }];
        assert!(matches!(PortPlan { users: Vec::new(), nodes }.check(), Err(PortError::InUse { .. })));
    }
}
