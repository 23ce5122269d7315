import WebSocket
import Wire

/// What a peer made of some bytes, however they were cut into pieces.
struct Transcript: Equatable {
    var events: [String] = []
    var violation: ProtocolViolation?
    var output: [UInt8] = []
}

extension Connection {
    static let limits = Limits(messageBytesMax: 1000, fragmentsMax: 8)

    /// Feeds the bytes in pieces of the given size and notes everything that comes of it.
    mutating func feed(_ bytes: [UInt8], pieces: Int = .max, limits: Limits = Connection.limits) -> Transcript {
        var transcript = Transcript()
        var message: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: min(pieces, max(bytes.count, 1))) {
            let piece = Array(bytes[start..<min(bytes.count, start + min(pieces, bytes.count))])
            var offset = 0
            do {
                while let event = try next(piece.span, &offset, into: &message, limits: limits) {
                    transcript.events.append(Self.describe(event, message))
                }
            } catch {
                transcript.violation = error
            }
            transcript.output += takeOutput()
            if transcript.violation != nil { break }
        }
        return transcript
    }

    private static func describe(_ event: Event, _ message: [UInt8]) -> String {
        switch event {
        case .message(.text, false): "text \(String(decoding: message, as: UTF8.self))"
        case .message(let opcode, let isCompressed): "\(opcode)\(isCompressed ? " deflated" : "") \(message)"
        case .ping: "ping \(String(decoding: message, as: UTF8.self))"
        case .pong: "pong \(String(decoding: message, as: UTF8.self))"
        case .closed(let code): "closed \(code.map { "\($0)" } ?? "-")"
        }
    }
}

/// Frames as a client sends them, or as one must not.
func masked(
    _ opcode: Opcode, _ payload: [UInt8], isFinal: Bool = true, isCompressed: Bool = false, mask: UInt32 = 0x37fa_213d
) -> [UInt8] {
    var frame: [UInt8] = []
    Frame.append(
        to: &frame, opcode, payload.span, isFinal: isFinal, isCompressed: isCompressed, mask: mask)
    return frame
}

func masked(_ opcode: Opcode, _ text: String, isFinal: Bool = true) -> [UInt8] {
    masked(opcode, Array(text.utf8), isFinal: isFinal)
}

/// What a server makes of a client's bytes; the same for whole, byte by byte and by sevens, or the test fails there.
func served(_ bytes: [UInt8], mayCompress: Bool = false) throws -> Transcript {
    try consistently {
        Connection(role: .server, mayCompress: mayCompress)
    } _: {
        $0.feed(bytes, pieces: $1)
    }
}

/// What a client makes of a server's bytes. Its answers are masked with random keys, so they are left out.
func received(_ bytes: [UInt8]) throws -> Transcript {
    try consistently {
        Connection(role: .client)
    } _: {
        var transcript = $0.feed(bytes, pieces: $1)
        transcript.output = []
        return transcript
    }
}

private func consistently(
    _ make: () -> Connection, _ run: (inout Connection, Int) -> Transcript
) throws -> Transcript {
    var whole = make()
    let transcript = run(&whole, .max)
    for pieces in [1, 7] {
        var other = make()
        let cut = run(&other, pieces)
        if cut != transcript { throw Inconsistent(pieces: pieces, whole: transcript, cut: cut) }
    }
    return transcript
}

struct Inconsistent: Error, CustomStringConvertible {
    let pieces: Int
    let whole: Transcript
    let cut: Transcript
    var description: String { "whole: \(whole), in pieces of \(pieces): \(cut)" }
}
