//! Random requests of the wire contract, from its descriptors: each field that there is, with ids, hostile texts and extremes in it. The same seed
//! gives the same request.

use std::collections::BTreeMap;

use acb_proto::FILE_DESCRIPTOR_SET;
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// Messages within messages: no contract of ours nests deeper.
const DEPTH: usize = 5;

/// SplitMix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In 0..below.
    pub fn below(&mut self, below: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(below).unwrap()).unwrap()
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A field as it is sent.
#[derive(Clone, Debug)]
pub struct Field {
    number: u64,
    name: String,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Varint(u64),
    Eight([u8; 8]),
    Four([u8; 4]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

/// One method, and what its requests are made of.
#[derive(Clone, Debug)]
pub struct Method {
    pub path: String,
    /// Whether a call may have more than one request.
    pub asks_many: bool,
    input: String,
}

/// What is in the descriptors.
pub struct Contract {
    pub methods: Vec<Method>,
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
}

impl Contract {
    pub fn read() -> Self {
        let mut contract = Self { methods: Vec::new(), messages: BTreeMap::new(), enums: BTreeMap::new() };
        for file in FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file {
            let package = format!(".{}", file.package());
            file.message_type.iter().for_each(|message| contract.add(&package, message));
            file.enum_type.iter().for_each(|found| contract.add_enum(&package, found));
            for service in &file.service {
                contract.methods.extend(service.method.iter().map(|method| Method {
                    path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                    asks_many: method.client_streaming(),
                    input: method.input_type().to_owned(),
                }));
            }
        }
        contract
    }

    fn add(&mut self, within: &str, message: &DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.add(&name, nested));
        message.enum_type.iter().for_each(|found| self.add_enum(&name, found));
        self.messages.insert(name, message.clone());
    }

    fn add_enum(&mut self, within: &str, found: &EnumDescriptorProto) {
        self.enums.insert(format!("{within}.{}", found.name()), found.clone());
    }

    /// A request of this method. `words` are names, ids and texts that go into its fields.
    pub fn request(&self, method: &Method, words: &[String], random: &mut Random) -> Vec<Field> {
        self.message(&method.input, words, random, 0)
    }

    fn message(&self, name: &str, words: &[String], random: &mut Random, depth: usize) -> Vec<Field> {
        let mut fields = Vec::new();
        let Some(message) = self.messages.get(name).filter(|_| depth < DEPTH) else { return fields };
        for field in &message.field {
            let times = match field.label() {
                Label::Repeated => [0, 1, 1, 3][random.below(4)],
                _ => usize::from(random.percent(70)),
            };
            for _ in 0..times {
                let value = self.value(field, words, random, depth);
                fields.push(Field { number: u64::try_from(field.number()).unwrap(), name: field.name().to_owned(), value });
            }
        }
        fields
    }

    fn value(&self, field: &FieldDescriptorProto, words: &[String], random: &mut Random, depth: usize) -> Value {
        const NUMBERS: [u64; 12] =
            [0, 1, 2, 32, 100, 1000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, 1 << 63, u64::MAX];
        match field.r#type() {
            Type::Message | Type::Group => Value::Message(self.message(field.type_name(), words, random, depth + 1)),
            Type::String => Value::Bytes(random.pick(words).clone().into_bytes()),
            Type::Bytes => match random.below(3) {
                0 => Value::Bytes(random.pick(words).clone().into_bytes()),
                1 => Value::Bytes(vec![0xff; random.below(70)]),
                _ => Value::Bytes(random.next().to_be_bytes().to_vec()),
            },
            Type::Bool => Value::Varint(random.next() % 3),
            Type::Enum => {
                let known = self.enums.get(field.type_name()).map_or(1, |found| found.value.len());
                Value::Varint(if random.percent(90) { random.below(known + 1) as u64 } else { u64::MAX })
            }
            Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                Value::Eight(random.pick(&[0.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX]).to_le_bytes())
            }
            Type::Float | Type::Fixed32 | Type::Sfixed32 => Value::Four(random.pick(&[0.0, f32::NAN, f32::MIN]).to_le_bytes()),
            _ => Value::Varint(*random.pick(&NUMBERS)),
        }
    }
}

fn varint(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// As protobuf has it.
pub fn encode(fields: &[Field]) -> Vec<u8> {
    let mut to = Vec::new();
    for Field { number, value, .. } in fields {
        let mut tag = |kind: u64| varint((number << 3) | kind, &mut to);
        match value {
            Value::Varint(number) => {
                tag(0);
                varint(*number, &mut to);
            }
            Value::Eight(bytes) => {
                tag(1);
                to.extend(bytes);
            }
            Value::Four(bytes) => {
                tag(5);
                to.extend(bytes);
            }
            Value::Bytes(bytes) => {
                tag(2);
                varint(bytes.len() as u64, &mut to);
                to.extend(bytes);
            }
            Value::Message(fields) => {
                tag(2);
                let inner = encode(fields);
                varint(inner.len() as u64, &mut to);
                to.extend(inner);
            }
        }
    }
    to
}

/// Messages as the body of a gRPC request.
pub fn body(messages: &[Vec<u8>]) -> Bytes {
    let mut body = BytesMut::new();
    for message in messages {
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.put_slice(message);
    }
    body.freeze()
}

/// Each of the requests that has one field less, the outermost first.
pub fn smaller(fields: &[Field]) -> Vec<Vec<Field>> {
    let mut all = Vec::new();
    for index in 0..fields.len() {
        let mut without = fields.to_vec();
        without.remove(index);
        all.push(without);
    }
    for (index, field) in fields.iter().enumerate() {
        if let Value::Message(inner) = &field.value {
            all.extend(smaller(inner).into_iter().map(|inner| {
                let mut with = fields.to_vec();
                with[index].value = Value::Message(inner);
                with
            }));
        }
    }
    all
}

/// For people.
pub fn shown(fields: &[Field]) -> String {
    let shown = |field: &Field| match &field.value {
        Value::Varint(number) => format!("{}: {number}", field.name),
        Value::Eight(bytes) => format!("{}: {bytes:02x?}", field.name),
        Value::Four(bytes) => format!("{}: {bytes:02x?}", field.name),
        Value::Bytes(bytes) => format!("{}: {:?}", field.name, String::from_utf8_lossy(&bytes[..bytes.len().min(80)])),
        Value::Message(inner) => format!("{}: {{{}}}", field.name, self::shown(inner)),
    };
    fields.iter().map(shown).collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_made_is_what_the_contract_reads() {
    use acb_proto::v1::{DiscoverRequest, SendMessageRequest};
    let contract = Contract::read();
    assert!(contract.methods.len() > 40, "{}", contract.methods.len());
    let words = ["acme".to_owned(), String::new(), "ü".to_owned()];
    let of = |name: &str| contract.methods.iter().find(|method| method.path.ends_with(name)).unwrap();
    let mut filled = 0;
    for seed in 0..200 {
        let send = contract.request(of("/SendMessage"), &words, &mut Random::new(seed));
        let read = SendMessageRequest::decode(encode(&send).as_slice()).unwrap();
        filled += usize::from(read.message.is_some_and(|message| words[..1].contains(&message.topic)));
        DiscoverRequest::decode(encode(&contract.request(of("/Discover"), &words, &mut Random::new(seed))).as_slice()).unwrap();
        assert_eq!(shown(&send), shown(&contract.request(of("/SendMessage"), &words, &mut Random::new(seed))));
        assert!(smaller(&send).iter().all(|less| encode(less).len() < encode(&send).len()));
    }
    assert!(filled > 20, "{filled}");
}
