import System
import Testing

@Suite struct CompressionTests {
    private let text = Array("hello hello hello hello fanout".utf8)

    @Test(arguments: Codec.allCases) func `what is compressed comes back, from nothing to megabytes`(codec: Codec)
        throws
    {
        var random = SeededGenerator(seed: 7)
        for count in [0, 1, 100, 65_536, 1_000_003] {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...9, using: &random) }
            let compressed = try codec.compress(bytes.span)
            #expect(try codec.decompress(compressed, maxBytes: count) == bytes)
            if count > 100, codec != .none { #expect(compressed.count < count) }
        }
    }

    /// Made by the command-line tools; zstd without the content's size, as from a Java client.
    @Test(arguments: [
        (Codec.gzip, "1f8b0800000000000003cb48cdc9c957c8c020d312f3f24b4b00ea1564061e000000"),
        (Codec.lz4, "04224d186440a7100000006e68656c6c6f2006006066616e6f757400000000bcfc7830"),
        (Codec.zstd, "28b52ffd04009500006068656c6c6f2066616e6f75740100f14a1116a56a64"),
    ]) func `what other programs compressed is read`(codec: Codec, hex: String) throws {
        #expect(try codec.decompress(bytes(hex: hex), maxBytes: 100) == text)
    }

    @Test(arguments: Codec.allCases) func `content beyond the limit is refused before it fills the memory`(codec: Codec)
        throws
    {
        let zeros = [UInt8](repeating: 0, count: 10 << 20)
        let compressed = try codec.compress(zeros.span)
        let error = #expect(throws: SystemError.self) { try codec.decompress(compressed, maxBytes: 1 << 20) }
        #expect(error?.code == .tooLarge)
    }

    @Test(arguments: Codec.allCases.dropFirst()) func `no cut and no flipped bit crashes a decoder`(codec: Codec) throws
    {
        let content = (0..<2000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        let compressed = try codec.compress(content.span)
        for count in 0..<compressed.count {
            let result = try? codec.decompress(Array(compressed.prefix(count)), maxBytes: 4000)
            // Only the empty input may be empty content: every other cut shows.
            if count > 0 { #expect(result == nil, "\(codec) cut to \(count)") }
        }
        var random = SeededGenerator(seed: 11)
        for _ in 0..<2000 {
            var damaged = compressed
            let place = Int.random(in: 0..<damaged.count, using: &random)
            damaged[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            _ = try? codec.decompress(damaged.span, maxBytes: 4000)
        }
    }

    @Test func `Java's snappy framing is read block by block`() throws {
        let first = try Codec.snappy.compress(text.span)
        var framed: [UInt8] = bytes(hex: "82534e4150505900" + "00000001" + "00000001")
        for _ in 0..<3 { framed += [0, 0, 0, UInt8(first.count)] + first }
        #expect(try Codec.snappy.decompress(framed, maxBytes: 90) == text + text + text)
        let cut = #expect(throws: SystemError.self) {
            try Codec.snappy.decompress(Array(framed.dropLast()), maxBytes: 90)
        }
        #expect(cut?.description == "decompress snappy: a block is cut off")
    }

    @Test(arguments: [(true, 15), (false, 15), (true, 9)])
    func `messages pass through a deflated stream one by one`(keepingWindow: Bool, windowBits: Int) throws {
        var deflater = try Deflater(windowBits: windowBits)
        var inflater = try Inflater(windowBits: windowBits)
        var sizes: [Int] = []
        for index in 0..<50 {
            let message =
                index == 7 ? [] : Array("{\"type\":\"message\",\"text\":\"the same words, number \(index)\"}".utf8)
            var compressed: [UInt8] = []
            deflater.compress(message.span, into: &compressed, keepingWindow: keepingWindow)
            sizes.append(compressed.count)
            var back: [UInt8] = []
            try inflater.decompress(compressed.span, into: &back, maxBytes: 1000, keepingWindow: keepingWindow)
            #expect(back == message)
        }
        // With the window kept, a repeated message costs little.
        if keepingWindow { #expect(sizes[20] < sizes[0] / 2) } else { #expect(sizes[20] > sizes[0] / 2) }
    }

    @Test func `the message of RFC 7692 reads as Hello, and its compressed form is shared`() throws {
        let hello = bytes(hex: "f248cdc9c90700")
        let again = bytes(hex: "f200110000")
        var inflater = try Inflater()
        var output: [UInt8] = []
        try inflater.decompress(hello.span, into: &output, maxBytes: 10)
        #expect(String(decoding: output, as: UTF8.self) == "Hello")
        output = []
        // The second time, referring to the first.
        try inflater.decompress(again.span, into: &output, maxBytes: 10)
        #expect(String(decoding: output, as: UTF8.self) == "Hello")
    }

    @Test func `a deflated message beyond the limit and one that is garbage are refused`() throws {
        var deflater = try Deflater()
        var compressed: [UInt8] = []
        deflater.compress([UInt8](repeating: 65, count: 1 << 20).span, into: &compressed)
        var inflater = try Inflater()
        var output: [UInt8] = []
        let large = #expect(throws: SystemError.self) {
            try inflater.decompress(compressed.span, into: &output, maxBytes: 1000)
        }
        #expect(large?.code == .tooLarge)
        var other = try Inflater()
        let garbage = #expect(throws: SystemError.self) {
            try other.decompress([0xff, 0xff, 0xff].span, into: &output, maxBytes: 1000)
        }
        #expect(garbage?.code == .corrupt)
    }
}

func bytes(hex: String) -> [UInt8] {
    let digits = Array(hex)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...($0 + 1)]), radix: 16) ?? 0 }
}

/// SplitMix64: the same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
