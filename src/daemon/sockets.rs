//! The listening sockets: which are open, which are to be, and how one takes another's place.
//!
//! What is new is bound before anything changes, and what is gone is closed after that. Where the two meet on one port (`0.0.0.0:25` in place of
//! `10.0.0.1:25`), the system lets both be there only if both say so (SO_REUSEPORT, socket(7)). They do for the moments of binding and of
//! listening, and as late as anything can still fail nobody can connect to the new one. So the port is never left, and there is nothing to bind
//! again if the new address cannot be had. Who connects between the last look at a socket that goes and its end (microseconds) has to connect
//! again. A socket that the service manager has passed on is its own, and does not make room.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use rustix::net::sockopt::set_socket_reuseport;
use tokio::net::{TcpListener, TcpSocket};

use super::{Fault, Inherited};

/// Connections that wait to be accepted, as the standard library has it for other listeners; the system's own limit (net.core.somaxconn) is
/// often lower.
pub(super) const BACKLOG: u32 = 4_096;

/// What to do where the relay itself is in the way.
const OWN: &str = "; the relay itself listens on that port, with another address of its configuration: leave one of the two out";
/// The same where its socket is the service manager's.
const HELD: &str = "; the service manager holds a socket of the relay on that port: change the .socket unit, and restart the relay";

/// Those that are open, each known by a number.
#[derive(Default)]
pub(super) struct Sockets {
    open: Vec<Open>,
    /// The number of the next one.
    next: usize,
}

#[derive(Clone)]
struct Open {
    number: usize,
    /// As it is configured; with port 0 `bound` is another one.
    wanted: SocketAddr,
    bound: SocketAddr,
    passed_on: bool,
    /// It goes with whoever accepts on it.
    socket: Weak<TcpListener>,
}

/// Those that will be closed, and make room until then.
#[derive(Default)]
pub(super) struct Going(Vec<Arc<TcpListener>>);

/// What is to be open, in the order of the configuration.
#[derive(Default)]
pub(super) struct Opening(Vec<(Open, Place)>);

enum Place {
    /// It is open, and stays so.
    Kept,
    New(Arc<TcpListener>),
    /// Bound beside one that is going.
    Beside(TcpSocket),
}

/// One that was opened.
pub(super) struct Opened {
    pub number: usize,
    pub bound: SocketAddr,
    pub socket: Arc<TcpListener>,
}

impl Sockets {
    /// Those that no address asks for any more.
    pub fn going(&self, wanted: &[SocketAddr]) -> Going {
        let mut gone = self.open.clone();
        for address in wanted {
            if let Some(i) = gone.iter().position(|open| open.wanted == *address) {
                gone.remove(i);
            }
        }
        Going(gone.iter().filter(|open| !open.passed_on).filter_map(|open| open.socket.upgrade()).collect())
    }

    /// Binds what is not open yet. The others go on as they are until [`Self::follow`].
    ///
    /// # Errors
    /// All addresses that cannot be bound; then nothing has changed.
    pub fn open(&mut self, wanted: &[SocketAddr], inherited: &mut Inherited, going: &Going) -> Result<Opening, Vec<Fault>> {
        let mut kept = self.open.clone();
        let (mut opening, mut faults) = (Opening::default(), Vec::new());
        for address in wanted {
            if let Some(i) = kept.iter().position(|open| open.wanted == *address) {
                opening.0.push((kept.remove(i), Place::Kept));
                continue;
            }
            self.next += 1;
            match new(self.next, *address, inherited, going) {
                Ok(new) => opening.0.push(new),
                Err(why) => {
                    let mut own = self.open.iter().chain(opening.0.iter().map(|(open, _)| open));
                    let own = own.find(|open| open.bound.port() == address.port()).filter(|_| why.kind() == io::ErrorKind::AddrInUse);
                    let fault = match own {
                        Some(Open { passed_on: true, .. }) => Fault::Bind { address: *address, why, hint: HELD },
                        Some(_) => Fault::Bind { address: *address, why, hint: OWN },
                        None => Fault::bind(*address, why),
                    };
                    faults.push(fault);
                }
            }
        }
        if faults.is_empty() { Ok(opening) } else { Err(faults) }
    }

    /// Takes over what was opened. Returns what is new; those that are gone are closed by whoever accepts on them.
    pub fn follow(&mut self, opening: Opening) -> Vec<Opened> {
        let mut opened = Vec::new();
        self.open.clear();
        for (open, place) in opening.0 {
            if let Place::New(socket) = place {
                opened.push(Opened { number: open.number, bound: open.bound, socket });
            }
            self.open.push(open);
        }
        opened
    }

    /// Where they listen.
    pub fn bound(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|open| open.bound).collect()
    }
}

impl Going {
    /// All of both.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Does what needs their room.
    fn make_room<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let done = self.0.iter().try_for_each(|socket| Ok(set_socket_reuseport(socket, true)?)).and_then(|()| work());
        for socket in &self.0 {
            // Whoever wants their place must ask for it in the same way, and be the same user.
            let _ = set_socket_reuseport(socket, false);
        }
        done
    }
}

impl Opening {
    /// Listens where that was put off: the last step that can fail.
    ///
    /// # Errors
    /// If the system does not let it after all.
    pub fn listen(&mut self, going: &Going) -> Result<(), Fault> {
        for (open, place) in &mut self.0 {
            *place = match std::mem::replace(place, Place::Kept) {
                Place::Beside(socket) => {
                    let listener = going.make_room(|| socket.listen(BACKLOG)).map_err(|why| Fault::bind(open.bound, why))?;
                    let _ = set_socket_reuseport(&listener, false);
                    let listener = Arc::new(listener);
                    open.socket = Arc::downgrade(&listener);
                    Place::New(listener)
                }
                other => other,
            };
        }
        Ok(())
    }

    /// The number of each and where it listens.
    pub fn each(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        self.0.iter().map(|(open, _)| (open.number, open.bound))
    }
}

/// A socket that listens there, or is bound beside one that is going: the one that was passed on, if there is one.
fn new(number: usize, address: SocketAddr, inherited: &mut Inherited, going: &Going) -> io::Result<(Open, Place)> {
    let passed_on = inherited.bound_to(address);
    let open = Open { number, wanted: address, bound: address, passed_on: passed_on.is_some(), socket: Weak::new() };
    let listener = match passed_on.map_or_else(|| std::net::TcpListener::bind(address), Ok) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !going.0.is_empty() => {
            let beside = going.make_room(|| beside(address));
            // If it is not one of those that are in the way, what was said first says more.
            return Ok((open, Place::Beside(beside.map_err(|_| error)?)));
        }
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    let listener = Arc::new(TcpListener::from_std(listener)?);
    let open = Open { bound: listener.local_addr()?, socket: Arc::downgrade(&listener), ..open };
    Ok((open, Place::New(listener)))
}

fn beside(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn at(address: &str, port: u16) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an address"), port)
    }

    fn opened(sockets: &mut Sockets, wanted: &[SocketAddr]) -> Vec<Opened> {
        let going = sockets.going(wanted);
        let mut opening = sockets.open(wanted, &mut Inherited::default(), &going).expect("bound");
        opening.listen(&going).expect("it listens");
        sockets.follow(opening)
    }

    #[tokio::test]
    async fn an_address_takes_the_place_of_another_on_its_port_and_the_port_is_never_left() {
        let mut sockets = Sockets::default();
        let mut open = opened(&mut sockets, &[at("127.0.0.1", 0)]);
        let port = open[0].bound.port();
        // As if it were configured with that port.
        sockets.open[0].wanted.set_port(port);
        let here = at("127.0.0.1", port);
        for address in ["0.0.0.0", "127.0.0.1", "::", "127.0.0.1"] {
            let wanted = [at(address, port)];
            let going = sockets.going(&wanted);
            let mut opening = sockets.open(&wanted, &mut Inherited::default(), &going).expect("bound");
            let _early = TcpStream::connect(here).await.expect("the one before listens");
            open[0].socket.accept().await.expect("it gets what comes");
            opening.listen(&going).expect("it listens");
            drop(going);
            open = sockets.follow(opening);
            let _late = TcpStream::connect(here).await.expect("the new one listens");
            open[0].socket.accept().await.expect("it gets what comes");
            assert!(std::net::TcpListener::bind(here).is_err(), "nobody else gets the port");
        }
    }

    #[tokio::test]
    async fn what_stays_makes_no_room_and_all_that_cannot_be_had_is_told() {
        let mut sockets = Sockets::default();
        let open = opened(&mut sockets, &[at("127.0.0.1", 0), at("127.0.0.2", 0)]);
        for (open, opened) in sockets.open.iter_mut().zip(&open) {
            open.wanted = opened.bound;
        }
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = taken.local_addr().expect("bound").port();
        let _taken = std::net::TcpListener::bind(at("127.0.0.3", taken)).expect("bound");
        // The first stays and is in the way of the third; the second goes.
        let wanted = [open[0].bound, at("127.0.0.3", taken), at("0.0.0.0", open[0].bound.port())];
        let going = sockets.going(&wanted);
        let faults = sockets.open(&wanted, &mut Inherited::default(), &going).err().expect("two faults");
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with(&format!("cannot listen on 127.0.0.3:{taken}: ")), "{faults:?}");
        assert!(faults[1].contains("the relay itself listens on that port"), "{faults:?}");
        assert_eq!(sockets.bound(), [open[0].bound, open[1].bound]);
    }
}
