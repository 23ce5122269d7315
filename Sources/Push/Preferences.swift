import PostgresClient
import Runtime
import System
import Wire

/// Who does not want to be told: chats that are muted, and quiet hours, asked of Postgres for many notices at once.
///
/// When the database does not answer, everybody is told: a notification too many is better than a message missed.
final class Preferences {
    private let channel: PostgresChannel
    private let clock: any Clock

    private static let muted = PostgresStatement(
        "push_muted",
        """
        SELECT asked.place
        FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (user_id, chat_id, place)
        LEFT JOIN members USING (user_id, chat_id)
        LEFT JOIN users USING (user_id)
        WHERE members.user_id IS NULL OR users.disabled OR members.muted_until > now()
           OR CASE WHEN users.quiet_from <= users.quiet_to
                   THEN minute >= users.quiet_from AND minute < users.quiet_to
                   ELSE minute >= users.quiet_from OR minute < users.quiet_to END
        """.replacing(
            "minute",
            with: "(extract(hour FROM here) * 60 + extract(minute FROM here))"
        ).replacing("here", with: "(now() AT TIME ZONE 'UTC' + users.utc_offset * interval '1 minute')"))

    init(_ url: String, on loop: EventLoop, clock: any Clock) {
        channel = PostgresChannel(url, on: loop)
        self.clock = clock
    }

    /// Parts the notices into what is wanted and what is not. A notice of which only some chats are muted appears in both:
    /// in the second list with the records that need no notice, and without chats only when nothing of it is wanted.
    func filter(
        _ notices: [Notice], _ done: @escaping (_ wanted: [Notice], _ unwanted: [(Notice, [RecordPosition])]) -> Void
    ) {
        let places = notices.indices.flatMap { notice in
            notices[notice].chats.indices.map { (notice: notice, chat: $0) }
        }
        let users = places.map { notices[$0.notice].user }
        let chats = places.map { notices[$0.notice].chats[$0.chat].chat }
        channel.query(Self.muted, [.ids(users), .ids(chats)]) { result in
            var mutedChats: [Int: Set<Int>] = [:]
            if case .success(let rows) = consume result {
                for row in 0..<rows.rowCount {
                    guard let place = rows.int(row, 0), places.indices.contains(Int(place) - 1) else { continue }
                    let (notice, chat) = places[Int(place) - 1]
                    mutedChats[notice, default: []].insert(chat)
                }
            }
            var wanted: [Notice] = []
            var unwanted: [(Notice, [RecordPosition])] = []
            for (index, notice) in notices.enumerated() {
                guard let muted = mutedChats[index] else {
                    wanted.append(notice)
                    continue
                }
                let (kept, settled) = notice.without(muted)
                unwanted.append((kept, settled))
                if !kept.chats.isEmpty { wanted.append(kept) }
            }
            done(wanted, unwanted)
        }
    }
}

extension Notice {
    /// The notice without some of its chats, and the records of those.
    func without(_ dropped: Set<Int>) -> (Notice, [RecordPosition]) {
        var kept = self
        kept.chats = chats.indices.filter { !dropped.contains($0) }.map { chats[$0] }
        return (kept, dropped.sorted().flatMap { chats[$0].records })
    }
}
