/// What both sides agreed on for permessage-deflate (RFC 7692).
///
/// A server here always asks for no context takeover in both directions. Then a message is compressed by itself: one
/// compressed broadcast serves every recipient, one inflater serves every connection of a thread, and an idle connection
/// keeps no window, which would be 256 KiB each.
public struct DeflateAgreement: Sendable, Equatable {
    /// The window that the server's messages may use, as a power of two.
    public var serverWindowBits: UInt8 = 15

    public init() {}

    /// The first offer that can be accepted; an offer with a parameter that is unknown, repeated or out of range is not.
    public static func choose(among offers: [String]) -> DeflateAgreement? {
        for offer in offers {
            if let agreement = accept(offer) { return agreement }
        }
        return nil
    }

    private static func accept(_ offer: String) -> DeflateAgreement? {
        let parts = offer.split(separator: ";", omittingEmptySubsequences: false).map { $0.trimmedHTTP }
        guard parts.first?.lowercased() == "permessage-deflate" else { return nil }
        var agreement = DeflateAgreement()
        var seen: Set<String> = []
        for part in parts.dropFirst() {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = Substring(pair.first ?? "").trimmedHTTP.lowercased()
            var value = pair.count == 2 ? pair[1].trimmedHTTP : nil
            if let text = value, text.utf8.count >= 2, text.hasPrefix("\""), text.hasSuffix("\"") {
                value = String(text.dropFirst().dropLast())
            }
            guard seen.insert(name).inserted else { return nil }
            switch name {
            case "server_no_context_takeover", "client_no_context_takeover":
                guard value == nil else { return nil }
            case "client_max_window_bits":
                // A hint that the client could be told to use less; it may use what it likes here.
                if let value, windowBits(value) == nil { return nil }
            case "server_max_window_bits":
                // zlib cannot make raw streams with a window of 256 bytes.
                guard let value, let bits = windowBits(value), bits >= 9 else { return nil }
                agreement.serverWindowBits = bits
            default: return nil
            }
        }
        return agreement
    }

    private static func windowBits(_ text: String) -> UInt8? {
        guard !text.hasPrefix("0"), text.utf8.allSatisfy({ $0 &- 0x30 < 10 }), let bits = UInt8(text),
            (8...15).contains(bits)
        else { return nil }
        return bits
    }

    /// The extension as the server's answer states it.
    public var header: String {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            + (serverWindowBits < 15 ? "; server_max_window_bits=\(serverWindowBits)" : "")
    }
}
