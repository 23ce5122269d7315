import Testing
import Wire

@Suite struct UUIDTests {
    @Test func `text and value are one to one`() {
        for _ in 0..<1000 {
            let id = UUID.random()
            #expect(UUID(id.description) == id)
            #expect(id.description.count == 36)
        }
        #expect(
            UUID("00112233-4455-6677-8899-aabbccddeeff")
                == UUID(high: 0x0011_2233_4455_6677, low: 0x8899_aabb_ccdd_eeff))
    }

    @Test(arguments: [
        "", "0", "00112233-4455-6677-8899-AABBCCDDEEFF", "00112233-4455-6677-8899-aabbccddeef",
        "00112233-4455-6677-8899-aabbccddeeff0", "00112233x4455-6677-8899-aabbccddeeff",
        "0011223g-4455-6677-8899-aabbccddeeff", "{0112233-4455-6677-8899-aabbccddeef}",
        "00112233-4455-6677-8899-aabbccddeef-", "００112233-4455-6677-8899-aabbccddeeff",
    ])
    func `anything but the one text form is refused`(text: String) {
        #expect(UUID(text) == nil)
    }

    @Test func `in a list an id is a string behind a comma`() {
        for _ in 0..<100 {
            let id = UUID.random()
            var bytes = [UInt8]("[1".utf8)
            id.appendListed(to: &bytes)
            #expect(String(decoding: bytes, as: UTF8.self) == "[1,\"\(id)\"")
        }
    }

    @Test func `a random id is a version 4 UUID`() {
        let text = UUID.random().description.utf8.map { $0 }
        #expect(text[14] == UInt8(ascii: "4"))
        #expect("89ab".utf8.contains(text[19]))
    }

    @Test func `the binary form is in network order`() {
        let id = UUID(high: 0x0011_2233_4455_6677, low: 0x8899_aabb_ccdd_eeff)
        var bytes: [UInt8] = []
        id.appendBinary(to: &bytes)
        #expect(bytes.prefix(3) == [0x00, 0x11, 0x22])
        let again = UUID(binary: bytes.span)
        #expect(again == id)
    }

    @Test(arguments: [0, 1, 9, 10, 99, 100, -1, -10, Int64.max, Int64.min] as [Int64])
    func `decimal digits are those of the number`(number: Int64) {
        var bytes: [UInt8] = []
        bytes.appendDecimal(number)
        #expect(String(decoding: bytes, as: UTF8.self) == String(number))
    }
}
