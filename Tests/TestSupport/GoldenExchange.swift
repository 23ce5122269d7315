public import Foundation

/// A request and its answer as hexadecimal text that was captured elsewhere: `> …` and `< …` under a line with the
/// request's name and version.
public struct GoldenExchange: Sendable {
    public let name: String
    public let version: Int16
    public let request: [UInt8]
    public let answer: [UInt8]

    public static func all(in file: URL) throws -> [GoldenExchange] {
        var found: [GoldenExchange] = []
        var title: [Substring] = []
        var request: [UInt8] = []
        for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") where !line.hasPrefix("#") {
            let words = line.split(separator: " ", omittingEmptySubsequences: false)
            switch words[0] {
            case ">": request = bytes(words[1])
            case "<":
                found.append(
                    GoldenExchange(
                        name: String(title[0]), version: Int16(title[1]) ?? -1, request: request,
                        answer: bytes(words[1])))
            default: title = words
            }
        }
        return found
    }

    /// Two digits a byte, in lower case.
    public static func bytes(_ hex: some StringProtocol) -> [UInt8] {
        let digits = hex.utf8.map { $0 < 0x61 ? $0 &- 0x30 : $0 &- 0x57 }
        return stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }
}
