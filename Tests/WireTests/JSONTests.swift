import TestSupport
import Testing
import Wire

/// What a reader makes of a text: `nil` when it is well-formed, else why not.
private func verdict(_ text: String) -> JSONError.Code? { verdict([UInt8](text.utf8)) }

private func verdict(_ bytes: [UInt8]) -> JSONError.Code? {
    do throws(JSONError) {
        var reader = JSONReader(bytes.span)
        try reader.skipValue()
        try reader.finish()
        return nil
    } catch {
        return error.code
    }
}

@Suite struct JSONReaderTests {
    @Test(arguments: [
        "0", "-0", "1.5e+10", "-12.25E-2", "true", "false", "null", "\"\"", "\"a\\u00e9\\n\"", "[]", "{}",
        " [ 1 , 2 ] ",
        "{\"a\":{\"b\":[{},[],[[1]],{\"c\":null}]},\"d\":\"\"}", "\"\\ud83d\\ude00\"", "\"\u{10ffff}\"", "[[],{}]",
    ])
    func `well-formed texts pass`(text: String) { #expect(verdict(text) == nil) }

    @Test(arguments: [
        "", " ", "{", "[", "[1", "[1,", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{a:1}", "{1:2}",
        "01",
        "-", "1.", ".5", "1e", "1e+", "+1", "0x1", "tru", "truex", "nul", "NaN", "Infinity", "\"", "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\t\"", "\"\n\"", "1 2", "[1 2]", "[1]]", "}", "]", "[}",
        "{]", "{\"a\":1]", "[1}", "'a'", "// c\n1", "\u{feff}1", "{\"a\" 1}", "[1,,2]", "{\"a\":1,,\"b\":2}", "00",
        "1a",
    ])
    func `malformed texts are refused`(text: String) { #expect(verdict(text) != nil) }

    @Test(
        arguments: [
            [0x22, 0x80, 0x22], [0x22, 0xc0, 0xaf, 0x22], [0x22, 0xe0, 0x80, 0xaf, 0x22],
            [0x22, 0xed, 0xa0, 0x80, 0x22],
            [0x22, 0xf4, 0x90, 0x80, 0x80, 0x22], [0x22, 0xff, 0x22], [0x22, 0xe2, 0x82, 0x22], [0x22, 0xf0, 0x9f],
            [0x22, 0xc3, 0x22], [0x22, 0xf8, 0x88, 0x80, 0x80, 0x80, 0x22],
        ] as [[UInt8]])
    func `invalid UTF-8 is refused wherever it stands`(bytes: [UInt8]) { #expect(verdict(bytes) == .invalidUTF8) }

    @Test func `nesting is limited`() {
        #expect(verdict(String(repeating: "[", count: 64) + String(repeating: "]", count: 64)) == nil)
        #expect(verdict(String(repeating: "[", count: 65) + String(repeating: "]", count: 65)) == .tooDeep)
        #expect(verdict(String(repeating: "[", count: 1_000_000)) == .tooDeep)
    }

    @Test func `integers keep their range and refuse what is not whole`() throws {
        func int(_ text: String) throws(JSONError) -> Int64 {
            let bytes = [UInt8](text.utf8)
            var reader = JSONReader(bytes.span)
            return try reader.readInt()
        }
        #expect(try int("9223372036854775807") == .max)
        #expect(try int("-9223372036854775808") == .min)
        #expect(try int("-0") == 0)
        for text in ["9223372036854775808", "-9223372036854775809", "99999999999999999999"] {
            #expect(throws: JSONError(.numberOutOfRange, at: 0)) { try int(text) }
        }
        for text in ["1.0", "1e3", "\"1\"", "true"] {
            #expect(throws: JSONError.self) { try int(text) }
        }
    }

    @Test func `strings are decoded on demand`() throws {
        let bytes = [UInt8](#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#.utf8)
        var reader = JSONReader(bytes.span)
        let string = try reader.readString()
        let text = string.text(in: bytes.span)
        #expect(text == "a\"\\/\u{8}\u{c}\n\r\té😀é")
        let count = string.scalarCount(in: bytes.span)
        #expect(count == 12)
        #expect(string.quotedRange == bytes.indices)
    }

    @Test func `fields arrive in the order of the text and values can be skipped or taken raw`() throws {
        let bytes = [UInt8](#"{"a":[1,{"b":2}], "skip":{"x":[]}, "z":"end"}"#.utf8)
        var reader = JSONReader(bytes.span)
        var seen: [String] = []
        try reader.beginObject()
        while let name = try reader.nextField() {
            seen.append(name.text(in: bytes.span))
            let range = try reader.skipValue()
            seen.append(String(showing: bytes.span.extracting(range)))
        }
        try reader.finish()
        #expect(seen == ["a", "[1,{\"b\":2}]", "skip", "{\"x\":[]}", "z", "\"end\""])
    }

    /// Every prefix of a text, and every text with one byte changed, must be judged without a trap.
    @Test func `hostile bytes never trap`() {
        var generator = SeededGenerator.announced("hostile JSON")
        let text = [UInt8](#"{"id":"\ud83d\ude00","n":-1.5e3,"a":[true,null,{"k":"é"}],"x":{}}"#.utf8)
        for end in 0..<text.count { #expect(verdict(Array(text[..<end])) != nil) }
        for _ in 0..<20_000 {
            var mutated = text
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                mutated[Int.random(in: 0..<mutated.count, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            _ = verdict(mutated)
        }
    }
}

@Suite struct JSONWriterTests {
    @Test func `commas, names and escapes are right`() {
        var json = JSONWriter()
        json.object {
            $0.field("a", 1)
            $0.field("text", "q\"\\\n\u{1}é😀")
            $0.name("list")
            $0.array {
                $0.value(true)
                $0.null()
                $0.object { _ in }
                $0.value(-2.5)
            }
            $0.field("none", Double.nan)
        }
        #expect(
            String(decoding: json.bytes, as: UTF8.self)
                == #"{"a":1,"text":"q\"\\\n\u0001é😀","list":[true,null,{},-2.5],"none":null}"#)
    }

    @Test func `what is written reads back`() throws {
        for _ in 0..<500 {
            let text = String(
                String.UnicodeScalarView(
                    (0..<20).map { _ in
                        Unicode.Scalar(UInt32.random(in: 0..<0x11_0000)) ?? "x"
                    }))
            var json = JSONWriter()
            json.value(text)
            var reader = JSONReader(json.bytes.span)
            let again = try reader.readText()
            #expect(again == text)
        }
    }
}

@Suite struct JSONFieldsTests {
    enum Field: String, CaseIterable {
        case id, chat, from, ts, kind, seq, text, metaVersion = "meta_version", a, b, ab, ba
    }

    @Test func `known names are found and all others are not`() {
        let fields = JSONFields<Field>()
        for field in Field.allCases {
            let name = [UInt8](field.rawValue.utf8)
            let found = fields.find(name.span)
            #expect(found == field)
        }
        for name in ["", "i", "idd", "chat ", "Chat", "meta_versioN", "bab"] {
            let bytes = [UInt8](name.utf8)
            let found = fields.find(bytes.span)
            #expect(found == nil)
        }
    }

    @Test func `a name written with escapes is the same name`() throws {
        let bytes = [UInt8](#"{"\u0063hat":1}"#.utf8)
        var reader = JSONReader(bytes.span)
        try reader.beginObject()
        let name = try #require(try reader.nextField())
        let found = JSONFields<Field>().find(name, in: bytes.span)
        #expect(found == .chat)
    }
}
