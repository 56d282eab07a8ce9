//! Keys that someone made up or damaged. The soak test runs the same for longer.

use harness::{Client, Database, Random, Uuid, as_tenant, one, rows, tenant};

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// What is sent in one statement.
const BATCH: usize = 200;
const MEGABYTE: usize = 1 << 20;

/// How many of `keys` authenticate nobody: `verify_api_key` gives no row and `authenticate_api_key` raises 28000.
const REFUSED: &str = "
CREATE FUNCTION refused(keys text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    key text;
    refused bigint := 0;
BEGIN
    FOREACH key IN ARRAY keys LOOP
        PERFORM verify_api_key(key);
        CONTINUE WHEN FOUND;
        BEGIN
            PERFORM authenticate_api_key(key);
        EXCEPTION WHEN invalid_authorization_specification THEN
            refused := refused + 1;
        END;
    END LOOP;
    RETURN refused;
END $$";

/// `text` with the checksum that a key ends with: CRC-32 (IEEE 802.3) in six digits of base 62.
pub fn with_checksum(text: &str) -> String {
    let shift = |crc: u32| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    let byte = |crc: u32, byte: u8| (0..8).fold(crc ^ u32::from(byte), |crc, _| shift(crc));
    let mut rest = !text.bytes().fold(!0, byte);
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    format!("{text}{}", String::from_utf8_lossy(&digits))
}

/// Numbers at random, the same in every run.
pub fn random() -> Random {
    Random::new(0x9e37_79b9_7f4a_7c15)
}

fn digit(random: &mut Random) -> char {
    char::from(*random.one_of(DIGITS))
}

/// A string of letters and digits.
pub fn digits(random: &mut Random, length: usize) -> String {
    (0..length).map(|_| digit(random)).collect()
}

/// Damages a key, in one of the ways in which people, programs and attackers do.
fn mutate(key: &str, random: &mut Random) -> String {
    const NOISE: [&str; 12] = [" ", "\n", "'", "%", "\\", "--", "\u{0}", "_", "é", "K", "\u{202e}", "𝟙"];
    let underscore = key.find('_').expect("a prefix");
    let (body, _) = key.split_at(key.len() - 6);
    let place = random.below(key.len());
    let noise = NOISE[random.below(NOISE.len())].replace('\u{0}', "\u{1}");
    match random.below(14) {
        0 => key[..place].to_owned(),
        1 => key[place + 1..].to_owned(),
        2 => format!("{}{}", &key[..place], &key[place + 1..]),
        3 => format!("{}{}{}", &key[..place], digit(random), &key[place + 1..]),
        4 => format!("{}{}{}", &key[..place], digit(random), &key[place..]),
        5 => format!("{}{noise}{}", &key[..place], &key[place..]),
        6 => format!("{noise}{key}"),
        7 => format!("{key}{noise}"),
        8 => key.chars().rev().collect(),
        9 => {
            if place.is_multiple_of(2) {
                key.to_uppercase()
            } else {
                key.to_lowercase()
            }
        }
        // The checksum is right, and the key is not.
        10 => with_checksum(&format!("ptk_{}", digits(random, 43))),
        11 => {
            let place = random.below(body.len());
            with_checksum(&format!("{}{}{}", &body[..place], digit(random), &body[place + 1..]))
        }
        12 => {
            let length = random.below(14) + 1;
            with_checksum(&format!("{}{}", digits(random, length), &body[underscore..]))
        }
        _ => format!("{key}{key}"),
    }
}

fn refused(client: &mut Client, keys: &[String]) -> i64 {
    one(client, "SELECT refused($1)", &[&keys])
}

/// Presents damaged keys, as a client would: no crash, no success.
pub fn run(keys: usize) {
    let database = Database::new("key_fuzz");
    database.superuser().batch_execute(REFUSED).expect("create the function");
    let tenant = tenant(&mut database.connect("operator"));
    let genuine: Vec<String> = as_tenant(&mut database.connect("app"), tenant, |tx| {
        let made = rows(tx, "SELECT k.api_key FROM generate_series(1, 20) i, create_api_key('Key ' || i) k", &[]);
        made.iter().map(|row| row.get(0)).collect()
    });
    let mut client = database.connect("client");
    let mut random = random();
    let mut presented = 0;
    while presented < keys {
        let mutated = std::iter::repeat_with(|| mutate(&genuine[presented % genuine.len()], &mut random));
        let batch: Vec<String> = mutated.filter(|key| !genuine.contains(key)).take(BATCH).collect();
        assert_eq!(refused(&mut client, &batch), i64::try_from(batch.len()).expect("few"), "{batch:?}");
        presented += batch.len();
    }
    let long =
        ["ptk_".repeat(MEGABYTE / 4), "a".repeat(MEGABYTE), "é".repeat(MEGABYTE), genuine[0].repeat(MEGABYTE / 53)];
    assert_eq!(refused(&mut client, &long), 4);
    for key in &genuine {
        assert_eq!(one::<Uuid>(&mut client, "SELECT tenant_id FROM verify_api_key($1)", &[key]), tenant);
    }
}
