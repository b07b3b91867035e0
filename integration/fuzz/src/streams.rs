//! What a client of the streaming server sends.

use bosun_streaming::spdy::frame::{self, Control, HEAD, Head};
use bosun_streaming::spdy::{Deflater, Inflater};

/// A connection of SPDY: each frame is one or an error, a control frame is bounded before it is read,
/// and what was understood says the same again.
pub fn spdy_frames(data: &[u8]) {
    let mut inflater = Inflater::default();
    let (mut deflater, mut again) = (Deflater::default(), Inflater::default());
    let mut rest = data;
    while let Some((bytes, after)) = rest.split_first_chunk::<HEAD>() {
        let Ok(head) = frame::head(*bytes) else { return };
        let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
        let Some((payload, after)) = after.split_at_checked(length as usize) else { return };
        rest = after;
        match head {
            Head::Data { stream, fin, length } => {
                let mut put = Vec::new();
                frame::put_data_head(&mut put, stream, fin, length as usize);
                assert_eq!(frame::head(put.try_into().unwrap()).unwrap(), head);
            }
            Head::Control { kind, flags, length } => {
                assert!(length <= 16 << 10, "{length} bytes would be read at once");
                let Ok(frame) = frame::control(kind, flags, payload, &mut inflater) else { return };
                same(&frame, &mut deflater, &mut again);
            }
        }
    }
}

fn same(frame: &Control, deflater: &mut Deflater, inflater: &mut Inflater) {
    let mut put = Vec::new();
    frame::put_control(&mut put, frame, deflater);
    let Some((head, payload)) = put.split_first_chunk::<HEAD>() else {
        return assert!(matches!(frame, Control::Unknown { .. }), "{frame:?}");
    };
    // What was small because it was said again and again may be large by itself.
    let Ok(head) = frame::head(*head) else { return assert!(payload.len() > 16 << 10) };
    let Head::Control { kind, flags, length } = head else { panic!("{head:?}") };
    assert_eq!(length as usize, payload.len());
    let read = frame::control(kind, flags, payload, inflater).unwrap();
    assert_eq!(read, *frame);
}
