/// Bytes that were right once: what a decoder has to bear that random bytes never reach.
public enum Mutation {
    /// One to four small changes, most of them where lengths and counts may be.
    public static func of(_ bytes: [UInt8], _ random: inout some RandomNumberGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...4, using: &random) { mutate(&bytes, &random) }
        return bytes
    }

    private static let telling: [UInt8] = [0, 1, 2, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff]

    private static func mutate(_ bytes: inout [UInt8], _ random: inout some RandomNumberGenerator) {
        guard !bytes.isEmpty else { return bytes.append(UInt8.random(in: 0...255, using: &random)) }
        let place = Int.random(in: 0..<bytes.count, using: &random)
        let byte = telling[Int.random(in: 0..<telling.count, using: &random)]
        switch Int.random(in: 0..<7, using: &random) {
        case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: bytes[place] = byte
        case 2: bytes.insert(byte, at: place)
        case 3: bytes.remove(at: place)
        case 4: bytes.removeLast(bytes.count - place)
        case 5:
            // A number of four bytes becomes one at the edge.
            for index in place..<min(place + 4, bytes.count) { bytes[index] = index == place ? byte : 0xff }
        default:
            let end = min(place + Int.random(in: 1...16, using: &random), bytes.count)
            bytes.insert(contentsOf: bytes[place..<end], at: place)
        }
    }
}
