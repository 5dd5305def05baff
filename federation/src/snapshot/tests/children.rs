//! Directories as mounts read them.

use super::*;

#[test]
fn a_directory_is_the_same_in_pages_of_any_size() {
    let mut model = Model::new();
    for number in 0..3000 {
        model.insert(path(format!("d/{number:05}")), entry(number % 200, 0));
    }
    for key in ["a", "a!", "a/b", "d", "d/00007/x", "d//y", "z"] {
        model.insert(path(key), entry(3, 0));
    }
    let (pages, root) = built(&model);
    let names = |children: &[Child]| children.iter().map(Child::key).collect::<Vec<_>>();
    let top = children(&pages, &root, b"", None, usize::MAX).expect("readable");
    assert_eq!(names(&top), [&b"a"[..], b"a!", b"a/", b"d", b"d/", b"z"]);
    let below = directory(&pages, &root, b"d/").expect("readable").expect("there");
    let all = children(&pages, &below, b"d/", None, usize::MAX).expect("readable");
    assert_eq!(all.len(), 3002);
    for size in [1, 7, 1000] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = children(&pages, &below, b"d/", after.as_deref(), size).expect("readable");
            let Some(last) = page.last() else { break };
            after = Some(last.key());
            paged.extend(page);
            // What is read one by one is enough to see for the first few.
            if size == 1 && paged.len() > 40 {
                break;
            }
        }
        assert_eq!(paged, all[..paged.len()]);
        assert!(size == 1 || paged.len() == all.len());
    }
}

#[test]
fn a_name_has_an_object_a_directory_both_or_nothing() {
    let keys = ["a", "a/b", "b", "c/d", "e//f", "g/"];
    let model: Model = keys.iter().map(|key| (path(key), entry(1, 0))).collect();
    let (pages, root) = built(&model);
    let has = |directory: &[u8], name: &[u8]| {
        let root = super::super::directory(&pages, &root, directory).expect("readable").expect("there");
        let found = named(&pages, &root, directory, name).expect("readable");
        (found.object.is_some(), found.directory.is_some())
    };
    assert_eq!(has(b"", b"a"), (true, true));
    assert_eq!(has(b"", b"b"), (true, false));
    assert_eq!(has(b"", b"c"), (false, true));
    assert_eq!(has(b"", b"x"), (false, false));
    assert_eq!(has(b"e/", b""), (false, true));
    assert_eq!(has(b"g/", b""), (true, false));
    assert_eq!(has(b"", b"c/d"), (false, false));
}

#[test]
fn what_is_read_next_is_asked_for_with_a_missing_page() {
    let model: Model = (0..5000).map(|number| (path(format!("{number:05}")), entry(number % 200, 40))).collect();
    let (pages, root) = built(&model);
    let mut here = MemoryPages::default();
    let (mut rounds, mut asked) = (0, 0);
    let listed = loop {
        match children(&here, &root, b"", None, usize::MAX) {
            Ok(listed) => break listed,
            Err(TreeError::Need(missing)) => {
                rounds += 1;
                asked += missing.len();
                for Missing { page, .. } in missing {
                    let bytes = pages.get(&page).expect("memory").expect("a page of the tree");
                    here.put(page, bytes).expect("memory");
                }
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(listed.len(), 5000);
    assert_eq!(asked, pages.iter().count(), "each page is asked for once");
    assert!(rounds * 8 < asked, "{rounds} rounds for {asked} pages");
}
