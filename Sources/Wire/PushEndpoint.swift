/// Where a browser's push service takes messages for it: a URL that the browser made, and so one that anybody may have
/// made up.
public struct PushEndpoint: Hashable, Sendable {
    public static let bytesMax = 2048

    public let isEncrypted: Bool
    /// In lower case; an IPv6 address without its brackets.
    public let host: String
    public let port: UInt16
    /// Scheme, host and, where it is not the scheme's own, port: what a signature for the service names.
    public let origin: String

    /// `nil` for anything but a plain `http` or `https` URL: no user, no fragment, and nothing that two readers of URLs
    /// could take for different hosts.
    public init?(_ url: String) {
        guard url.utf8.count <= Self.bytesMax,
            url.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != 0x5c && $0 != 0x23 })
        else { return nil }
        let rest: Substring
        if url.hasPrefix("https://") {
            (isEncrypted, rest) = (true, url.dropFirst(8))
        } else if url.hasPrefix("http://") {
            (isEncrypted, rest) = (false, url.dropFirst(7))
        } else {
            return nil
        }
        let authority = rest.prefix { $0 != "/" && $0 != "?" }
        guard !authority.contains("@") else { return nil }
        let name: Substring
        let portText: Substring?
        if authority.hasPrefix("[") {
            guard let end = authority.firstIndex(of: "]") else { return nil }
            name = authority[authority.index(after: authority.startIndex)..<end]
            let after = authority[authority.index(after: end)...]
            guard after.isEmpty || after.hasPrefix(":") else { return nil }
            portText = after.isEmpty ? nil : after.dropFirst()
            guard name.utf8.allSatisfy({ Self.isHexDigit($0) || $0 == 0x3a || $0 == 0x2e }) else { return nil }
        } else {
            let parts = authority.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count <= 2 else { return nil }
            name = parts[0]
            portText = parts.count == 2 ? parts[1] : nil
            guard name.utf8.allSatisfy({ Self.isNameByte($0) }) else { return nil }
        }
        let standard: UInt16 = isEncrypted ? 443 : 80
        guard !name.isEmpty, let port = portText.map({ UInt16($0) }) ?? standard, port > 0 else { return nil }
        self.port = port
        host = name.lowercased()
        let shown = authority.hasPrefix("[") ? "[\(host)]" : host
        origin = (isEncrypted ? "https://" : "http://") + shown + (port == standard ? "" : ":\(port)")
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 || (byte | 0x20) &- 0x61 < 6 }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        byte &- 0x30 < 10 || (byte | 0x20) &- 0x61 < 26 || byte == 0x2d || byte == 0x2e || byte == 0x5f
    }
}
