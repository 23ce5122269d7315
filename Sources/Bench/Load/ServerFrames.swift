import WebSocket
import Wire

/// Whole frames out of the bytes of a server that never fragments and never masks: less work than a full connection
/// does, since a generator shares the machine with what it measures.
struct ServerFrames {
    /// The start of a frame whose end has not arrived.
    private var partial: [UInt8] = []

    mutating func take(_ bytes: Span<UInt8>, _ body: (Opcode?, Span<UInt8>) -> Void) {
        if partial.isEmpty {
            let used = Self.split(bytes, body)
            partial.append(bytes.extracting(used..<bytes.count))
        } else {
            partial.append(bytes)
            let whole = partial
            partial = []
            let used = Self.split(whole.span, body)
            partial.append(whole.span.extracting(used..<whole.count))
        }
    }

    /// Returns how many bytes the whole frames were.
    private static func split(_ bytes: Span<UInt8>, _ body: (Opcode?, Span<UInt8>) -> Void) -> Int {
        var offset = 0
        while bytes.count - offset >= 2 {
            var count = Int(bytes[offset + 1])
            var start = offset + 2
            if count == 126 {
                guard bytes.count - offset >= 4 else { break }
                count = Int(bytes[offset + 2]) << 8 | Int(bytes[offset + 3])
                start += 2
            } else if count == 127 {
                guard bytes.count - offset >= 10 else { break }
                count = 0
                for index in start..<start + 8 { count = count << 8 | Int(bytes[index]) }
                start += 8
            }
            guard bytes.count - start >= count else { break }
            body(Opcode(rawValue: bytes[offset] & 0x0f), bytes.extracting(start..<start + count))
            offset = start + count
        }
        return offset
    }
}
