import Wire

/// The type byte. Odd numbers are sent by the worker, even ones by the instance, the last two by both.
enum FrameType: UInt8 {
    case hello = 1
    case challenge = 2
    case proof = 3
    case welcome = 4

    case claim = 11
    case refused = 12
    case release = 13

    case register = 20
    case registered = 21
    case unregister = 22
    case takenOver = 23

    case acknowledge = 30
    case batch = 31
    case progress = 33

    case fill = 40
    case page = 41
    case cannotFill = 43

    case watch = 50
    case presence = 51
    case unwatch = 52

    case storeCursors = 60
    case storedCursor = 61
    case lookUpCursor = 62

    case heartbeat = 70
    case goodbye = 71
}

/// One complete frame in a buffer.
struct Frame {
    let type: FrameType
    let body: Range<Int>

    /// Header and body.
    var whole: Range<Int> { body.lowerBound - LinkLimits.headerCount..<body.upperBound }
}

/// Bytes as they arrive, cut into frames. Holds at most one incomplete frame beside what one read brought.
struct FrameBuffer {
    private(set) var bytes: [UInt8] = []
    private var start = 0
    var frameCountMax = LinkLimits.handshakeFrameCountMax

    mutating func append(_ received: Span<UInt8>) {
        // Moved to the front only when everything is used up or the used part is the larger: no byte moves twice.
        if start == bytes.count {
            bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 18)
            start = 0
        } else if start > bytes.count / 2 {
            bytes.removeSubrange(0..<start)
            start = 0
        }
        bytes.append(received)
    }

    /// The next complete frame, valid until the next `append`.
    mutating func next() throws(LinkError) -> Frame? {
        guard bytes.count - start >= LinkLimits.headerCount else { return nil }
        var length = 0
        for index in 0..<4 { length |= Int(bytes[start + index]) << (index * 8) }
        guard length >= 1 else { throw LinkError(.protocolViolation, "a frame without a type") }
        guard length <= frameCountMax else { throw LinkError(.tooLarge, "a frame of \(length) bytes") }
        guard let type = FrameType(rawValue: bytes[start + 4]) else {
            throw LinkError(.protocolViolation, "frame type \(bytes[start + 4])")
        }
        guard bytes.count - start >= 4 + length else { return nil }
        let body = start + LinkLimits.headerCount..<start + 4 + length
        start = body.upperBound
        return Frame(type: type, body: body)
    }
}
