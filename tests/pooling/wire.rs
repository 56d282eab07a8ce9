//! A client that vanishes: it speaks just enough of the wire protocol to leave at any moment without a word of goodbye,
//! which no driver does.

use harness::PgBouncer;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 3 << 16;

/// A session through a pooler; dropping it closes the socket, and that is all that the pooler hears.
pub struct Wire(TcpStream);

impl Wire {
    /// Connects with further startup parameters, each name followed by its value; gives the refusal if there is one.
    pub fn connect(bouncer: &PgBouncer, role: &str, parameters: &[&str]) -> Result<Wire, String> {
        let config = bouncer.config(role);
        Wire::open(bouncer.port(), role, config.get_dbname().expect("a database"), parameters)
    }

    /// Connects to what listens on a port of this machine.
    pub fn open(port: u16, role: &str, database: &str, parameters: &[&str]) -> Result<Wire, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set a timeout");
        stream.set_nodelay(true).expect("send at once");
        let mut wire = Wire(stream);
        let mut startup = PROTOCOL.to_be_bytes().to_vec();
        for word in ["user", role, "database", database].iter().chain(parameters).chain(&[""]) {
            startup.extend_from_slice(word.as_bytes());
            startup.push(0);
        }
        wire.write(&with_length(&startup));
        wire.until_ready().map(|()| wire)
    }

    /// Runs statements by the simple protocol; panics on an error.
    pub fn run(&mut self, sql: &str) {
        self.send(sql);
        if let Err(refusal) = self.until_ready() {
            panic!("{sql}: {refusal}");
        }
    }

    /// Sends statements without waiting for what comes of them.
    pub fn send(&mut self, sql: &str) {
        self.write(&query(sql));
    }

    /// Sends the first half of the message that holds the statements.
    pub fn send_half(&mut self, sql: &str) {
        let message = query(sql);
        self.write(&message[..message.len() / 2]);
    }

    /// Calls a function by the protocol's own message, with arguments in text form; gives the refusal if there is one.
    pub fn call(&mut self, function: u32, arguments: &[&str]) -> Result<(), String> {
        let mut body = [&function.to_be_bytes()[..], &[0, 0]].concat();
        body.extend_from_slice(&u16::try_from(arguments.len()).expect("few arguments").to_be_bytes());
        for argument in arguments {
            body.extend_from_slice(&u32::try_from(argument.len()).expect("a short argument").to_be_bytes());
            body.extend_from_slice(argument.as_bytes());
        }
        body.extend_from_slice(&[0, 0]);
        self.write(&message(b'F', &body));
        let outcome = self.until_ready();
        if outcome.is_err() {
            // A session goes on after it.
            self.until_ready().expect("ready again");
        }
        outcome
    }

    /// Parses, binds and executes a statement by the extended protocol, and never synchronises.
    pub fn send_without_sync(&mut self, sql: &str) {
        let parse = [b"\0", sql.as_bytes(), b"\0\0\0"].concat();
        let bind = [0; 8];
        let execute = [0; 5];
        for (kind, body) in [(b'P', &parse[..]), (b'B', &bind), (b'E', &execute), (b'H', &[])] {
            self.write(&message(kind, body));
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("write to PgBouncer");
    }

    /// Reads until the server is ready for the next query, or has refused.
    fn until_ready(&mut self) -> Result<(), String> {
        loop {
            let mut header = [0; 5];
            self.0.read_exact(&mut header).expect("read from PgBouncer");
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
            let mut body = vec![0; length as usize - 4];
            self.0.read_exact(&mut body).expect("read from PgBouncer");
            match header[0] {
                b'Z' => return Ok(()),
                b'E' => return Err(String::from_utf8_lossy(&body).into_owned()),
                _ => {}
            }
        }
    }
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &with_length(body)].concat()
}

/// A length counts itself.
fn with_length(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&length.to_be_bytes()[..], body].concat()
}
