import System
import WebSocket
import Wire

/// permessage-deflate for all sessions of one loop, with one window in each direction: no context is taken over, so a message
/// is compressed by itself, and once for however many devices it goes to.
struct LoopDeflate: ~Copyable {
    private var deflater: Deflater?
    private var inflater: Inflater?

    /// Below this compressing costs more than it saves.
    static let bytesMin = 512

    /// A whole compressed text frame, made by the first who needs it.
    mutating func frame(_ text: Span<UInt8>) -> [UInt8]? {
        if deflater == nil { deflater = try? Deflater() }
        guard deflater != nil else { return nil }
        var payload: [UInt8] = []
        deflater?.compress(text, into: &payload, keepingWindow: false)
        return Frame.encode(.text, payload.span, isCompressed: true)
    }

    /// The text of a compressed message, which must be UTF-8 and no longer than any other.
    mutating func text(_ payload: [UInt8], bytesMax: Int) throws(ProtocolViolation) -> [UInt8] {
        var text: [UInt8] = []
        do throws(SystemError) {
            if inflater == nil { inflater = try Inflater() }
            try inflater?.decompress(payload.span, into: &text, maxBytes: bytesMax, keepingWindow: false)
        } catch {
            // A broken stream leaves its inflater in the middle of it.
            inflater = nil
            throw error.code == .tooLarge
                ? ProtocolViolation(.tooBig, "message over \(bytesMax) bytes")
                : ProtocolViolation(.invalidPayload, "a message that cannot be inflated")
        }
        var utf8 = UTF8Validator()
        guard utf8.accept(text.span), utf8.isComplete else {
            throw ProtocolViolation(.invalidPayload, "text that is not UTF-8")
        }
        return text
    }
}

/// An event on its way to many devices: the frame as it is, and compressed for those that agreed to that.
struct EventFrame {
    let plain: [UInt8]
    private var compressed: [UInt8]?
    private let text: Range<Int>

    init(_ payload: Span<UInt8>) {
        plain = Frame.encode(.text, payload)
        text = plain.count - payload.count..<plain.count
    }

    mutating func bytes(for session: Session, _ deflate: inout LoopDeflate) -> [UInt8] {
        guard session.deflates, text.count >= LoopDeflate.bytesMin else { return plain }
        if compressed == nil { compressed = deflate.frame(plain.span.extracting(text)) }
        return compressed ?? plain
    }
}
