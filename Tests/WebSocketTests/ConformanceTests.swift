import Testing
import WebSocket

/// Every MUST of RFC 6455 that concerns frames, by section.
@Suite struct ConformanceTests {
    // MARK: 5.1 Masking

    @Test func `5.1 a server fails an unmasked frame`() throws {
        let transcript = try served(Frame.encode(.text, Array("hi".utf8)))
        #expect(transcript.violation?.closeCode == .protocolError)
        #expect(transcript.output == Frame.encode(close: .protocolError, reason: "frame without mask"))
    }

    @Test func `5.1 a server never masks what it sends`() throws {
        let transcript = try served(masked(.ping, "are you there") + masked(.close, [0x03, 0xe8]))
        #expect(transcript.output == Frame.encode(.pong, Array("are you there".utf8)) + Frame.encode(close: .normal))
    }

    @Test func `5.1 a client fails a masked frame`() throws {
        #expect(try received(masked(.text, "hi")).violation?.closeCode == .protocolError)
    }

    @Test func `5.1 a client masks everything it sends, with keys that differ`() throws {
        var client = Connection(role: .client)
        var keys: Set<[UInt8]> = []
        for _ in 0..<8 {
            let output = client.feed(Frame.encode(.ping, Array("p".utf8))).output
            #expect(output[1] & 0x80 != 0)
            keys.insert(Array(output[2..<6]))
        }
        #expect(keys.count == 8)
    }

    // MARK: 5.2 Base framing

    @Test func `5.7 the RFC's own examples are read and written`() throws {
        #expect(Frame.encode(.text, Array("Hello".utf8)) == [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f])
        let maskedHello: [UInt8] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
        #expect(masked(.text, Array("Hello".utf8), mask: 0x3d21_fa37) == maskedHello)
        #expect(try served(maskedHello).events == ["text Hello"])
        #expect(try received([0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f]).events == ["text Hello"])
    }

    @Test(arguments: [UInt8(0x10), 0x20, 0x30, 0x40]) func `5.2 a reserved bit that nothing gave a meaning fails`(
        bit: UInt8
    ) throws {
        var frame = masked(.text, "hi")
        frame[0] |= bit
        #expect(try served(frame).violation?.closeCode == .protocolError)
    }

    @Test(arguments: [UInt8(3), 4, 5, 6, 7, 11, 12, 13, 14, 15]) func `5.2 an unknown opcode fails`(opcode: UInt8)
        throws
    {
        var frame = masked(.text, "hi")
        frame[0] = 0x80 | opcode
        #expect(try served(frame).violation?.closeCode == .protocolError)
    }

    @Test(arguments: [0, 1, 125, 126, 127, 255, 256, 1000]) func `5.2 every length form carries its payload`(
        count: Int
    ) throws {
        let text = String(repeating: "x", count: count)
        #expect(try served(masked(.text, text)).events == ["text \(text)"])
        #expect(try received(Frame.encode(.text, Array(text.utf8))).events == ["text \(text)"])
    }

    @Test func `5.2 a 64-bit length is read`() throws {
        var server = Connection(role: .server)
        let limits = Connection.Limits(messageBytesMax: 100_000)
        let payload = [UInt8](repeating: 7, count: 70_000)
        var frame: [UInt8] = []
        Frame.append(to: &frame, .binary, payload.span, mask: 99)
        #expect(server.feed(frame, pieces: 1024, limits: limits).events == ["binary \(payload)"])
    }

    @Test(
        arguments: [
            [0x81, 0xfe, 0x00, 0x05], [0x81, 0xfe, 0x00, 0x7d], [0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 0x7d],
            [0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        ] as [[UInt8]]) func `5.2 a length must have its shortest form`(header: [UInt8]) throws
    {
        #expect(try served(header + [1, 2, 3, 4]).violation?.closeCode == .protocolError)
    }

    @Test func `5.2 a length with its top bit set fails`() throws {
        let header: [UInt8] = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4]
        #expect(try served(header).violation?.closeCode == .protocolError)
    }

    // MARK: 5.3, 5.6 Masks and data

    @Test func `5.3 a payload is unmasked alike wherever the input is cut`() throws {
        for count in 0...17 {
            let payload = (0..<UInt8(count)).map { $0 &* 37 }
            #expect(try served(masked(.binary, payload, mask: 0x0403_0201)).events == ["binary \(payload)"])
            let halves =
                masked(.binary, Array(payload[..<(count / 2)]), isFinal: false, mask: 0xffee_ddcc)
                + masked(.continuation, Array(payload[(count / 2)...]), mask: 0)
            #expect(try served(halves).events == ["binary \(payload)"])
        }
    }

    @Test func `5.6 a binary message may hold any bytes, and a text only UTF-8`() throws {
        let every = Array(0...255 as ClosedRange<UInt8>)
        #expect(try served(masked(.binary, every)).events == ["binary \(every)"])
        #expect(try served(masked(.text, every)).violation?.closeCode == .invalidPayload)
    }

    // MARK: 5.4 Fragmentation

    @Test func `5.4 fragments become one message, empty ones too`() throws {
        let bytes =
            masked(.text, "", isFinal: false) + masked(.continuation, "Hel", isFinal: false)
            + masked(.continuation, "", isFinal: false) + masked(.continuation, "lo")
        #expect(try served(bytes).events == ["text Hello"])
        let empty = masked(.binary, "", isFinal: false) + masked(.continuation, "")
        #expect(try served(empty).events == ["binary []"])
    }

    @Test func `5.4 control frames may come between fragments`() throws {
        let bytes =
            masked(.text, "Hel", isFinal: false) + masked(.ping, "1") + masked(.continuation, "l", isFinal: false)
            + masked(.pong, "2") + masked(.continuation, "o") + masked(.text, "next")
        let transcript = try served(bytes)
        #expect(transcript.events == ["ping 1", "pong 2", "text Hello", "text next"])
        #expect(transcript.output == Frame.encode(.pong, Array("1".utf8)))
    }

    @Test func `5.4 a message must not begin inside another`() throws {
        let bytes = masked(.text, "Hel", isFinal: false) + masked(.text, "lo")
        #expect(try served(bytes).violation?.closeCode == .protocolError)
    }

    @Test func `5.4 a continuation must continue something`() throws {
        #expect(try served(masked(.continuation, "lo")).violation?.closeCode == .protocolError)
        let bytes = masked(.text, "done") + masked(.continuation, "lo")
        let transcript = try served(bytes)
        #expect(transcript.events == ["text done"])
        #expect(transcript.violation?.closeCode == .protocolError)
    }

    // MARK: 5.5 Control frames

    @Test(arguments: [Opcode.ping, .pong, .close]) func `5.5 a control frame carries at most 125 bytes`(
        opcode: Opcode
    ) throws {
        let payload = [0x03, 0xe8] + [UInt8](repeating: 0x61, count: 124)
        #expect(try served(masked(opcode, payload)).violation?.closeCode == .protocolError)
        #expect(try served(masked(opcode, Array(payload.dropLast()))).violation == nil)
    }

    @Test(arguments: [Opcode.ping, .pong, .close]) func `5.5 a control frame must not be fragmented`(
        opcode: Opcode
    ) throws {
        #expect(try served(masked(opcode, [0x03, 0xe8], isFinal: false)).violation?.closeCode == .protocolError)
    }

    @Test func `5.5.1 a close is answered with its code, and nothing is read after it`() throws {
        let transcript = try served(masked(.close, [0x0f, 0xa0]) + masked(.text, "too late") + [0xff, 0xff])
        #expect(transcript.events == ["closed 4000"])
        #expect(transcript.violation == nil)
        #expect(transcript.output == Frame.encode(close: CloseCode(rawValue: 4000)))
    }

    @Test func `5.5.1 a close without a code is answered without one`() throws {
        let transcript = try served(masked(.close, []))
        #expect(transcript.events == ["closed -"])
        #expect(transcript.output == [0x88, 0x00])
    }

    @Test func `5.5.1 a close that answers ours is not answered again`() throws {
        var server = Connection(role: .server)
        server.close(.goingAway)
        server.close(.tryAgainLater)
        #expect(server.takeOutput() == Frame.encode(close: .goingAway))
        let transcript = server.feed(masked(.text, "on its way") + masked(.ping, "") + masked(.close, [0x03, 0xe9]))
        #expect(transcript.events == ["text on its way", "ping ", "closed 1001"])
        #expect(transcript.output == [])
        #expect(server.hasEnded)
    }

    @Test func `5.5.2 every ping is answered with its payload, in order`() throws {
        let pings = (0..<10).flatMap { masked(.ping, "ping \($0)") }
        #expect(try served(pings).output == (0..<10).flatMap { Frame.encode(.pong, Array("ping \($0)".utf8)) })
    }

    @Test func `5.5.3 a pong that nobody asked for is passed over`() throws {
        let transcript = try served(masked(.pong, "hello") + masked(.text, "hi"))
        #expect(transcript.events == ["pong hello", "text hi"])
        #expect(transcript.output == [])
    }

    // MARK: 7.1, 7.4 Closing

    @Test(arguments: [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] as [UInt16])
    func `7.4 a code that must not be in a frame fails`(code: UInt16) throws {
        let transcript = try served(masked(.close, [UInt8(code >> 8), UInt8(code & 0xff)]))
        #expect(transcript.violation?.closeCode == .protocolError)
    }

    @Test(
        arguments: [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]
            as [UInt16])
    func `7.4 every defined or registered code is taken`(code: UInt16) throws {
        #expect(try served(masked(.close, [UInt8(code >> 8), UInt8(code & 0xff)])).events == ["closed \(code)"])
    }

    @Test func `7.1.7 after a violation nothing more is read, and nothing but its close frame is said`() throws {
        let after = masked(.ping, "still there?") + masked(.text, "hi") + masked(.close, [0x03, 0xe8])
        let transcript = try served(masked(.text, [0xff]) + after)
        #expect(transcript.events == [] && transcript.violation?.closeCode == .invalidPayload)
        var server = Connection(role: .server)
        _ = server.feed(masked(.continuation, ""))
        #expect(server.hasEnded)
        let later = server.feed(after)
        #expect(later == Transcript())
    }

    @Test func `7.1.5 half a code is a violation`() throws {
        #expect(try served(masked(.close, [0x03])).violation?.closeCode == .protocolError)
    }

    @Test func `5.5.1 a close reason must be UTF-8`() throws {
        #expect(try served(masked(.close, [0x03, 0xe8, 0xc3, 0x28])).violation?.closeCode == .invalidPayload)
        #expect(try served(masked(.close, [0x03, 0xe8] + Array("größer".utf8))).events == ["closed 1000"])
    }

    // MARK: 8.1 UTF-8

    @Test(arguments: [
        "κόσμε", "\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}", "Hello-µ@ßöäüàá-UTF-8!!", "\u{0}", "",
    ]) func `8.1 good UTF-8 passes wherever it is cut`(text: String) throws {
        #expect(try served(masked(.text, text)).events == ["text \(text)"])
        let bytes = Array(text.utf8)
        for cut in 0...bytes.count where bytes.count <= 8 {
            let frames =
                masked(.text, Array(bytes[..<cut]), isFinal: false) + masked(.continuation, Array(bytes[cut...]))
            #expect(try served(frames).events == ["text \(text)"])
        }
    }

    static let badText: [[UInt8]] = [
        [0x80], [0xc0, 0x80], [0xc1, 0xbf], [0xe0, 0x80, 0x80], [0xed, 0xa0, 0x80], [0xed, 0xbf, 0xbf],
        [0xf0, 0x80, 0x80, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80], [0xff], [0xfe],
        [0xce, 0xba, 0xe1, 0xbd], [0xe2, 0x28, 0xa1], [0x61, 0xf0, 0x90],
    ]

    @Test(arguments: badText) func `8.1 bad UTF-8 in a text fails with 1007`(bytes: [UInt8]) throws {
        #expect(try served(masked(.text, bytes)).violation?.closeCode == .invalidPayload)
        #expect(try served(masked(.binary, bytes)).violation == nil)
    }

    @Test func `8.1 a bad byte ends the message when it comes, not when the message does`() throws {
        var server = Connection(role: .server)
        let transcript = server.feed(masked(.text, [0x61, 0xff, 0x61], isFinal: false))
        #expect(transcript.violation?.closeCode == .invalidPayload)
    }

    @Test func `8.1 a text must not end inside a character, across fragments too`() throws {
        let frames = masked(.text, [0xce], isFinal: false) + masked(.continuation, [0xba, 0xce])
        #expect(try served(frames).violation?.closeCode == .invalidPayload)
    }

    // MARK: Limits (10.4)

    @Test func `10.4 a message over the limit fails with 1009 before its payload comes`() throws {
        let header = Array(masked(.binary, [UInt8](repeating: 0, count: 1001)).prefix(8))
        #expect(try served(header).violation?.closeCode == .tooBig)
        let pieces = masked(.binary, [UInt8](repeating: 0, count: 600), isFinal: false)
        #expect(
            try served(pieces + masked(.continuation, [UInt8](repeating: 0, count: 401))).violation?.closeCode
                == .tooBig)
        #expect(try served(pieces + masked(.continuation, [UInt8](repeating: 0, count: 400))).violation == nil)
    }

    @Test func `10.4 a message in too many fragments fails, though they be empty`() throws {
        let frames =
            masked(.text, "", isFinal: false) + (0..<8).flatMap { _ in masked(.continuation, "", isFinal: false) }
        #expect(try served(frames).violation?.closeCode == .policyViolation)
        let enough =
            masked(.text, "", isFinal: false)
            + (0..<6).flatMap { _ in masked(.continuation, "", isFinal: false) } + masked(.continuation, "")
        #expect(try served(enough).events == ["text "])
    }

    @Test func `between messages a connection is idle and has ended only after a close`() throws {
        var server = Connection(role: .server)
        #expect(server.isIdle)
        _ = server.feed(masked(.text, "a", isFinal: false))
        #expect(!server.isIdle)
        _ = server.feed(masked(.continuation, "b"))
        #expect(server.isIdle)
        #expect(MemoryLayout<Connection>.size <= 160)
    }

    // MARK: RFC 7692

    @Test func `RFC 7692 6 a compressed message is passed on as such when agreed, and fails when not`() throws {
        let frame = masked(.text, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], isCompressed: true)
        #expect(try served(frame).violation?.closeCode == .protocolError)
        #expect(try served(frame, mayCompress: true).events == ["text deflated [242, 72, 205, 201, 201, 7, 0]"])
    }

    @Test func `RFC 7692 6 only a message's first frame says that it is compressed`() throws {
        let frames =
            masked(.text, [0xf2], isFinal: false, isCompressed: true)
            + masked(.continuation, [0x48], isCompressed: true)
        #expect(try served(frames, mayCompress: true).violation?.closeCode == .protocolError)
        let control = masked(.ping, [0xf2], isCompressed: true)
        #expect(try served(control, mayCompress: true).violation?.closeCode == .protocolError)
    }
}
