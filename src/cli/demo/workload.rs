//! What the demonstration sends, as devices and applications do, and how.

use std::io;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One mail and what should become of it.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    /// What it is, for the table.
    pub title: &'static str,
    /// MAIL FROM.
    pub from: &'static str,
    /// RCPT TO.
    pub to: Vec<String>,
    /// MAIL's parameters.
    pub parameters: &'static str,
    /// Its header, without the blank line.
    pub header: String,
    /// Its body.
    pub body: Vec<u8>,
    /// How many of its recipients the endpoint takes; the others are refused, and the author gets a notice.
    pub taken: usize,
}

/// The workload.
pub(super) fn mails() -> Vec<Mail> {
    let mail = |title, from, to: &[&str], header: &str, body: &str| Mail {
        title,
        from,
        to: to.iter().map(|to| (*to).to_owned()).collect(),
        parameters: "",
        header: header.replace('\n', "\r\n"),
        body: body.replace('\n', "\r\n").into_bytes(),
        taken: to.len(),
    };
    let scan = Mail { body: attachment(), ..mail("a scan with a PDF", "scanner.3f@contoso.com", &["anna@contoso.com"], SCAN, "") };
    let mut everybody =
        mail("a notice to 120 people", "facility@contoso.com", &[], NOTICE, "The lift in building 3 is out of order today.\n");
    everybody.to = (1..=120).map(|n| format!("staff{n:03}@contoso.com")).collect();
    everybody.taken = 120;
    let mut international =
        mail("a subject in UTF-8", "kantine@contoso.com", &["jörg@contoso.com"], UTF8, "Käsespätzle, crème brûlée, 豆腐.\n");
    international.parameters = " BODY=8BITMIME SMTPUTF8";
    let external = mail(
        "to an external recipient",
        "billing@contoso.com",
        &["clerk@fabrikam.example"],
        EXTERNAL,
        "Please find your invoice.\n.\n..\n",
    );
    let refused = Mail {
        taken: 0,
        ..mail("to somebody who has left", "erp@contoso.com", &["nobody.here@contoso.com"], REFUSED, "Please approve.\n")
    };
    vec![scan, everybody, international, external, refused]
}

const SCAN: &str = "From: \"MFP 3rd floor\" <scanner.3f@contoso.com>\nTo: anna@contoso.com\nSubject: Scan from MFP 3rd floor\n\
    MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"=_scan\"\n";
const NOTICE: &str = "From: facility@contoso.com\nTo: everybody:;\nSubject: Lift out of order\n";
const UTF8: &str = "From: Kantine <kantine@contoso.com>\nTo: Jörg <jörg@contoso.com>\nSubject: Mittagskarte: Käsespätzle\n\
    MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n";
const EXTERNAL: &str =
    "From: Billing <billing@contoso.com>\nTo: clerk@fabrikam.example\nSubject: Invoice 4711\nReply-To: office@contoso.com\n";
const REFUSED: &str = "From: ERP <erp@contoso.com>\nTo: nobody.here@contoso.com\nSubject: Order 0815 waits for you\n";

/// A text part and a PDF of about 300 KB, large enough to be streamed to a file.
fn attachment() -> Vec<u8> {
    let mut pdf = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Count 0/Kids[]>>endobj\n3 0 obj<</Length 300000>>stream\n".to_vec();
    // A scan is noise to a compressor; a small generator is noise enough.
    let mut state: u32 = 1;
    pdf.extend((0..300_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    pdf.extend_from_slice(b"\nendstream endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n");
    let mut body = b"--=_scan\r\nContent-Type: text/plain\r\n\r\nSee the attached file.\r\n--=_scan\r\nContent-Type: application/pdf; name=\"scan.pdf\"\r\n\
        Content-Disposition: attachment; filename=\"scan.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    for line in STANDARD.encode(pdf).as_bytes().chunks(76) {
        body.extend_from_slice(line);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--=_scan--\r\n");
    body
}

/// Sends a mail as a device would: plain SMTP, one command at a time. Returns the queue id of the final reply.
pub(super) async fn send(relay: SocketAddr, mail: &Mail) -> io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(relay).await?);
    expect(&mut stream, "", "220").await?;
    expect(&mut stream, "EHLO mfp-3f.contoso.com\r\n", "250").await?;
    expect(&mut stream, &format!("MAIL FROM:<{}>{}\r\n", mail.from, mail.parameters), "250").await?;
    for to in &mail.to {
        expect(&mut stream, &format!("RCPT TO:<{to}>\r\n"), "250").await?;
    }
    expect(&mut stream, "DATA\r\n", "354").await?;
    stream.write_all(mail.header.as_bytes()).await?;
    stream.write_all(b"\r\n").await?;
    for line in mail.body.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            stream.write_all(b".").await?;
        }
        stream.write_all(line).await?;
    }
    let reply = expect(&mut stream, ".\r\n", "250").await?;
    expect(&mut stream, "QUIT\r\n", "221").await?;
    Ok(reply.rsplit(' ').next().unwrap_or_default().to_owned())
}

async fn expect(stream: &mut BufReader<TcpStream>, command: &str, wanted: &str) -> io::Result<String> {
    stream.write_all(command.as_bytes()).await?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line.as_bytes().get(3) != Some(&b'-') {
            let line = line.trim_end().to_owned();
            return if line.starts_with(wanted) {
                Ok(line)
            } else {
                Err(io::Error::other(format!("{} was answered {line:?}", command.trim_end())))
            };
        }
    }
}
