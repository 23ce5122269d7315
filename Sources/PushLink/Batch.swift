import Wire

/// Batch and page frames: the two that carry events. The event's bytes are a complete device frame, cursor included,
/// made once for a record and copied once for each link it goes to.
extension [UInt8] {
    /// `u32 partition, cursor, u8 kind, u32 sessions, the numbers, the event to the frame's end`.
    mutating func appendBatch(
        partition: Int32, cursor: Cursor, kind: EventKind, sessions: Span<SessionNumber>, payload: Span<UInt8>
    ) {
        let frame = beginFrame(.batch)
        appendLittle(partition)
        append(cursor)
        append(kind.rawValue)
        appendLittle(UInt32(sessions.count))
        append(addingCapacity: sessions.count * 4) { output in
            for index in sessions.indices {
                let number = sessions[index]
                output.append(UInt8(truncatingIfNeeded: number))
                output.append(UInt8(truncatingIfNeeded: number >> 8))
                output.append(UInt8(truncatingIfNeeded: number >> 16))
                output.append(UInt8(truncatingIfNeeded: number >> 24))
            }
        }
        append(payload)
        endFrame(frame)
    }
}

extension Batch {
    @_lifetime(body: copy body)
    static func decode(_ body: inout BodyReader) throws(LinkError) -> Batch {
        let partition = try body.partition()
        let cursor = try body.cursor()
        // A kind that this build does not know is an event like any other.
        let kind = EventKind(rawValue: try body.integer(UInt8.self)) ?? .other
        let count = try body.count(each: 4)
        let sessions = try body.range(count * 4)
        let payload = try body.range(body.rest)
        return Batch(partition: partition, cursor: cursor, kind: kind, sessions: sessions, payload: payload)
    }
}

extension FillPage {
    @_lifetime(body: copy body)
    static func decode(_ body: inout BodyReader) throws(LinkError) -> FillPage {
        let request = try body.integer(UInt32.self)
        let session = try body.integer(UInt32.self)
        let upTo = try body.cursor()
        let isLast = try body.flag()
        let count = try body.count(each: 13)
        var events: [Event] = []
        events.reserveCapacity(count)
        var last: Int64 = -1
        for _ in 0..<count {
            let offset = try body.integer(Int64.self)
            guard offset > last, offset <= upTo.offset else {
                throw LinkError(.protocolViolation, "a page with offset \(offset) after \(last) up to \(upTo)")
            }
            last = offset
            let kind = EventKind(rawValue: try body.integer(UInt8.self)) ?? .other
            let payload = try body.range(Int(try body.integer(UInt32.self)))
            events.append(Event(offset: offset, kind: kind, payload: payload))
        }
        return FillPage(request: request, session: session, upTo: upTo, isLast: isLast, events: events)
    }
}

/// Writes one page, event by event, into a link's output: `u32 request, u32 session, cursor upTo, u8 last, u32 events,
/// and each: i64 offset, u8 kind, u32 bytes, the event`.
public struct PageWriter {
    private let frame: Int
    private let upToPlace: Int
    private var eventCount: UInt32 = 0

    init(_ output: inout [UInt8], request: UInt32, session: SessionNumber) {
        frame = output.beginFrame(.page)
        output.appendLittle(request)
        output.appendLittle(session)
        upToPlace = output.count
        output.append(Cursor.start)
        output.append(0)
        output.appendLittle(UInt32(0))
    }

    mutating func append(_ output: inout [UInt8], offset: Int64, kind: EventKind, payload: Span<UInt8>) {
        output.appendLittle(offset)
        output.append(kind.rawValue)
        output.appendLittle(UInt32(payload.count))
        output.append(payload)
        eventCount += 1
    }

    consuming func finish(_ output: inout [UInt8], upTo: Cursor, isLast: Bool) {
        func put(_ value: UInt64, _ count: Int, at place: Int) {
            for index in 0..<count { output[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(index * 8)) }
        }
        put(UInt64(bitPattern: upTo.offset), 8, at: upToPlace)
        put(UInt64(bitPattern: upTo.timestamp), 8, at: upToPlace + 8)
        output[upToPlace + 16] = isLast ? 1 : 0
        put(UInt64(eventCount), 4, at: upToPlace + 17)
        output.endFrame(frame)
    }
}
