use proptest::prelude::{Just, Strategy, any};

use super::*;

const MESSAGE: MessageId = MessageId { boot: BootId(0xabc), seq: 7 };

fn parse(request: &FrameRequest) -> Result<Frame, FrameError> {
    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target.as_str(), None),
    };
    Frame::parse(path, query, request.body.as_bytes())
}

#[test]
fn a_request_is_smaller_than_what_neutron_reads() {
    let message = MessageId { boot: BootId(u64::MAX), seq: u32::MAX };
    let frames = split(message, &vec![0xff; MAX_MESSAGE_BYTES]).expect("not too large");
    assert_eq!(frames.len(), 146);
    let small = split_into(message, &vec![0xff; MAX_MESSAGE_BYTES], 0).expect("not too large");
    assert_eq!(small.len(), MAX_FRAMES);
    for frame in &small {
        let FrameRequest { target, body } = frame.to_request(Form::Body);
        assert!(target.len() + body.len() < 1_050, "{} + {}", target.len(), body.len());
    }
    for frame in frames {
        for form in [Form::Body, Form::Query] {
            let FrameRequest { target, body } = frame.to_request(form);
            assert!(target.len() + body.len() < 2_700, "{} + {}", target.len(), body.len());
            assert!(target.is_ascii() && body.is_ascii());
        }
    }
}

#[test]
fn a_message_that_is_too_large_is_refused_on_both_sides() {
    assert_eq!(split(MESSAGE, &vec![0; MAX_MESSAGE_BYTES + 1]), Err(FrameError::TooLarge));
    let mut frame = split(MESSAGE, b"x").expect("not too large").remove(0);
    frame.length = MAX_MESSAGE_BYTES + 1;
    assert_eq!(parse(&frame.to_request(Form::Body)), Err(FrameError::TooLarge));
}

#[test]
fn an_empty_message_has_one_frame() {
    let frames = split(MESSAGE, b"").expect("not too large");
    assert_eq!(frames.len(), 1);
    let mut assembly = Assembly::begin(&frames[0]);
    assert_eq!(assembly.add(frames[0].clone()), Ok(Some(Vec::new())));
}

#[test]
fn a_frame_that_was_cut_on_the_way_is_not_a_frame() {
    let frame = split(MESSAGE, &[b'x'; 3_000]).expect("not too large").remove(0);
    for form in [Form::Body, Form::Query] {
        let request = frame.to_request(form);
        for lost in 1..=40 {
            let mut cut = request.clone();
            let text = if form == Form::Body { &mut cut.body } else { &mut cut.target };
            text.truncate(text.len() - lost);
            assert!(parse(&cut).is_err(), "{form:?} {lost}");
        }
    }
    let empty = FrameRequest { body: String::new(), ..frame.to_request(Form::Body) };
    assert_eq!(parse(&empty), Err(FrameError::BadFields));
}

#[test]
fn paths_and_fields_are_read_strictly() {
    let frame = split(MESSAGE, b"x").expect("not too large").remove(0);
    let body = frame.to_request(Form::Body).body;
    for path in [
        "/heliograph/v1/f/",
        "/heliograph/v1/f/0000000000000abc/7",
        "/heliograph/v1/f/0000000000000ABC/7/1-1",
        "/heliograph/v1/f/0000000000000abc/-7/1-1",
        "/heliograph/v1/f/0000000000000abc/7/1-1/",
        "/heliograph/v1/f/abc/7/1-1",
    ] {
        assert_eq!(Frame::parse(path, None, body.as_bytes()), Err(FrameError::BadPath), "{path}");
    }
    for path in ["0-1", "2-1", "1-2", "1-0"] {
        let path = format!("/heliograph/v1/f/0000000000000abc/7/{path}");
        assert_eq!(Frame::parse(&path, None, body.as_bytes()), Err(FrameError::BadPlace), "{path}");
    }
    let path = "/heliograph/v1/f/0000000000000abc/7/1-1";
    for query in [
        "",
        "len=1",
        "len=1&sha256=00&d=eA",
        "len=1&len=1&part=1800&sha256=00&d=eA",
        "len=1&part=1800&sha256=00&d=eA&x=1",
    ] {
        assert_eq!(Frame::parse(path, Some(query), b""), Err(FrameError::BadFields), "{query}");
    }
}

#[test]
fn frames_of_two_messages_do_not_mix() {
    let one = split(MESSAGE, &[1; 2_000]).expect("not too large");
    let other = split(MESSAGE, &[2; 2_000]).expect("not too large");
    let mut assembly = Assembly::begin(&one[0]);
    assert_eq!(assembly.add(one[0].clone()), Ok(None));
    assert_eq!(assembly.add(other[1].clone()), Err(FrameError::OtherMessage));
    assert_eq!(assembly.add(one[1].clone()), Ok(Some(vec![1; 2_000])));
}

#[test]
fn a_message_that_is_cut_anew_begins_anew() {
    let bytes = vec![1; 5_000];
    let large = split(MESSAGE, &bytes).expect("not too large");
    let small = split_into(MESSAGE, &bytes, 700).expect("not too large");
    let mut assembly = Assembly::begin(&large[0]);
    assert_eq!(assembly.add(large[0].clone()), Ok(None));
    for frame in &small {
        assert_eq!(assembly.add(frame.clone()), Err(FrameError::OtherMessage));
    }
}

#[test]
fn a_forged_part_is_found_by_the_digest() {
    let mut frames = split(MESSAGE, &[1; 2_000]).expect("not too large");
    frames[1].data[0] = 9;
    let mut assembly = Assembly::begin(&frames[0]);
    assert_eq!(assembly.add(frames[0].clone()), Ok(None));
    assert_eq!(assembly.add(frames[1].clone()), Err(FrameError::BadDigest));
}

fn arrivals() -> impl Strategy<Value = (Vec<u8>, usize, Vec<usize>)> {
    proptest::collection::vec(any::<u8>(), 0..9_000)
        .prop_flat_map(|bytes| (Just(bytes), SMALL_FRAME_DATA_BYTES..=MAX_FRAME_DATA_BYTES))
        .prop_flat_map(|(bytes, size)| {
            let n = bytes.len().div_ceil(size).max(1);
            let every = (0..n).chain(0..n).collect::<Vec<usize>>();
            (Just(bytes), Just(size), Just(every).prop_shuffle())
        })
}

proptest::proptest! {
    #[test]
    fn frames_in_any_order_and_repeated_make_the_message((bytes, size, order) in arrivals()) {
        let frames = split_into(MESSAGE, &bytes, size).expect("not too large");
        let mut assembly = Assembly::begin(&frames[0]);
        let mut whole = None;
        for (index, position) in order.into_iter().enumerate() {
            let form = if index % 2 == 0 { Form::Body } else { Form::Query };
            let arrived = parse(&frames[position].to_request(form)).expect("a frame");
            whole = assembly.add(arrived).expect("one of this message").or(whole);
        }
        proptest::prop_assert_eq!(whole, Some(bytes));
    }

    #[test]
    fn no_request_makes_it_panic(path in "/heliograph/v1/f/[0-9a-f/-]{0,40}", query: Option<String>, body: Vec<u8>) {
        let _ = Frame::parse(&path, query.as_deref(), &body);
    }
}
