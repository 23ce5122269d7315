import Wire

/// How long a body is, and the collecting of it.
struct HTTPBody {
    enum Length: Equatable {
        case none
        case counted(Int)
        case chunked
        /// Everything until the peer ends its side: responses only.
        case untilEnd
    }

    private enum State {
        case counted(left: Int)
        case chunkSize(digits: Int, value: Int)
        case chunkExtension(value: Int)
        case chunkSizeEnd(value: Int)
        case chunk(left: Int)
        case chunkEnd(sawReturn: Bool)
        /// Trailer fields are passed over: nothing here needs one, and merging them into the head is how they hurt.
        case trailer(lineCount: Int, sawReturn: Bool)
        case untilEnd
        case done
    }

    /// Chunk extensions and trailers carry nothing that is used; this much of them is put up with.
    static let framingMax = 4096

    private(set) var bytes: [UInt8] = []
    private let max: Int
    private var state: State
    private var framing = 0

    init(_ length: Length, max: Int) throws(HTTPError) {
        self.max = max
        switch length {
        case .none: state = .done
        case .counted(let count):
            guard count <= max else { throw HTTPError(.bodyTooLarge) }
            state = count == 0 ? .done : .counted(left: count)
        case .chunked: state = .chunkSize(digits: 0, value: 0)
        case .untilEnd: state = .untilEnd
        }
    }

    var isComplete: Bool { if case .done = state { true } else { false } }
    var endsWithStream: Bool { if case .untilEnd = state { true } else { false } }

    /// The length that a request's fields announce. Whatever two readers could understand differently is refused.
    static func length(ofRequest fields: HTTPFields, minorVersion: Int) throws(HTTPError) -> Length {
        let codings = fields.count(of: "transfer-encoding")
        let lengths = fields.count(of: "content-length")
        if codings > 0 {
            guard codings == 1, lengths == 0, minorVersion == 1 else { throw HTTPError(.ambiguousLength) }
            guard fields["transfer-encoding"]?.lowercased() == "chunked" else {
                throw HTTPError(.unsupportedCoding)
            }
            return .chunked
        }
        guard lengths > 0 else { return .none }
        guard lengths == 1, let text = fields["content-length"], let count = decimal(text) else {
            throw HTTPError(.ambiguousLength)
        }
        return .counted(count)
    }

    static func length(ofReply reply: HTTPReply, toHead: Bool) throws(HTTPError) -> Length {
        if toHead || reply.status < 200 || reply.status == 204 || reply.status == 304 { return .none }
        let length = try length(ofRequest: reply.fields, minorVersion: 1)
        return length == .none ? .untilEnd : length
    }

    /// Digits only: `+5`, `0x5`, `5, 5` and an empty value are not lengths.
    private static func decimal(_ text: String) -> Int? {
        guard !text.isEmpty, text.utf8.count <= 18, text.utf8.allSatisfy({ $0 &- 0x30 < 10 }) else { return nil }
        return Int(text)
    }

    /// Takes what belongs to the body from `offset` on.
    mutating func receive(_ input: Span<UInt8>, _ offset: inout Int) throws(HTTPError) {
        while offset < input.count {
            let byte = input[offset]
            switch state {
            case .done: return
            case .untilEnd:
                try take(input, &offset, input.count - offset)
            case .counted(let left):
                let taken = Swift.min(left, input.count - offset)
                try take(input, &offset, taken)
                state = taken == left ? .done : .counted(left: left - taken)
            case .chunk(let left):
                let taken = Swift.min(left, input.count - offset)
                try take(input, &offset, taken)
                state = taken == left ? .chunkEnd(sawReturn: false) : .chunk(left: left - taken)
            case .chunkSize(let digits, let value):
                offset += 1
                if let digit = PercentCoding.hexValue(byte) {
                    // Fifteen digits cannot overflow; leading zeros beyond them serve no honest sender.
                    guard digits < 15 else { throw HTTPError(.badChunk) }
                    state = .chunkSize(digits: digits + 1, value: value << 4 | Int(digit))
                } else if digits > 0, byte == 0x0d {
                    state = .chunkSizeEnd(value: value)
                } else if digits > 0, byte == 0x3b {
                    state = .chunkExtension(value: value)
                } else {
                    throw HTTPError(.badChunk)
                }
            case .chunkExtension(let value):
                offset += 1
                try countFraming()
                if byte == 0x0d {
                    state = .chunkSizeEnd(value: value)
                } else if byte < 0x20 && byte != 0x09 || byte == 0x7f {
                    throw HTTPError(.badChunk)
                }
            case .chunkSizeEnd(let value):
                offset += 1
                guard byte == 0x0a else { throw HTTPError(.badChunk) }
                guard value <= max - bytes.count else { throw HTTPError(.bodyTooLarge) }
                state = value == 0 ? .trailer(lineCount: 0, sawReturn: false) : .chunk(left: value)
            case .chunkEnd(let sawReturn):
                offset += 1
                guard byte == (sawReturn ? 0x0a : 0x0d) else { throw HTTPError(.badChunk) }
                state = sawReturn ? .chunkSize(digits: 0, value: 0) : .chunkEnd(sawReturn: true)
            case .trailer(let lineCount, let sawReturn):
                offset += 1
                try countFraming()
                if sawReturn {
                    guard byte == 0x0a else { throw HTTPError(.badChunk) }
                    state = lineCount == 0 ? .done : .trailer(lineCount: 0, sawReturn: false)
                } else if byte == 0x0d {
                    state = .trailer(lineCount: lineCount, sawReturn: true)
                } else {
                    guard byte >= 0x20 && byte != 0x7f || byte == 0x09 else { throw HTTPError(.badChunk) }
                    state = .trailer(lineCount: lineCount + 1, sawReturn: false)
                }
            }
        }
    }

    /// The peer has ended its side.
    mutating func end() -> Bool {
        if case .untilEnd = state { state = .done }
        return isComplete
    }

    private mutating func take(_ input: Span<UInt8>, _ offset: inout Int, _ count: Int) throws(HTTPError) {
        guard count <= max - bytes.count else { throw HTTPError(.bodyTooLarge) }
        bytes.append(input.extracting(offset..<offset + count))
        offset += count
    }

    private mutating func countFraming() throws(HTTPError) {
        framing += 1
        guard framing <= Self.framingMax else { throw HTTPError(.badChunk) }
    }
}
